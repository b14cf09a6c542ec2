"""Codes: what the controller looks at, as one vector a set of weights. Contexts are checked and encoded here."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ContextError

__all__ = ["check_context", "dim_of", "encode", "join", "sets_of"]


def dim_of(encoder: nn.Module | None) -> int | None:
    """Return the length of an encoder's codes; ``None`` without encoder.

    Raises
    ------
    ConfigError
        It does not tell.
    """
    if encoder is None:
        return None
    dim = getattr(encoder, "out_dim", None)
    if not isinstance(dim, int):
        raise ConfigError(
            f"The context encoder {type(encoder).__name__} has no `out_dim`: set it to the length of the vectors that "
            f"its forward gives, (B, out_dim)."
        )
    return dim


def sets_of(code: Tensor | None) -> int:
    """Return how many sets of weights are made for a code."""
    return 1 if code is None or code.dim() == 1 else code.shape[0]


def check_context(encoder: nn.Module | None, context: Any, index: Any = None) -> None:
    """Check that a context is there where one is wanted, and only there.

    Raises
    ------
    ContextError
        In words that say what to call.
    """
    if context is None and index is not None:
        raise ContextError(
            "`index` says which context each sample has, but there is no context. Call "
            "`mutator(x, context=c, index=i)`."
        )
    if encoder is None and context is not None:
        raise ContextError(
            "A context was given, but the mutator has no context encoder. Give it one: "
            "`DynamicWeightMutator(space, context=VectorContext(D, dim))`, or leave the context out."
        )
    if encoder is not None and context is None:
        raise ContextError(
            f"The context is missing: this network's weights are made from one "
            f"({type(encoder).__name__}). Call `mutator(x, context=c)`, or the space as `space((x, c))`."
        )


def encode(encoder: nn.Module, dim: int | None, context: Any, batch: int | None) -> Tensor:
    """Return the code of a context: ``(B, dim)``, or ``(dim,)`` where one serves all samples.

    Parameters
    ----------
    dim
        Length of the code.
    batch
        Samples in the input, where that is known.

    Raises
    ------
    ContextError
        The context is of another batch size or type, or the encoder gives no vectors of its length.
    """
    code = _run(encoder, context)
    if code.dim() != 2 or code.shape[1] != dim:
        raise ContextError(f"{type(encoder).__name__} must give (B, {dim}), but gave {tuple(code.shape)}.")
    if code.shape[0] == 1:
        return code[0]
    if batch is not None and code.shape[0] != batch:
        raise ContextError(
            f"The context has {code.shape[0]} samples, but the input has {batch}. Give one context a sample, one for "
            f"the whole batch, or say which context each sample has: `mutator(x, context=c, index=i)`."
        )
    return code


def _run(encoder: nn.Module, context: Any) -> Tensor:
    try:
        return encoder(context)
    except (RuntimeError, ValueError) as error:
        own = next((one.dtype for one in encoder.parameters() if one.is_floating_point()), None)
        if own is None or not _is_values(context) or context.dtype == own:
            raise
        raise ContextError(
            f"The context is {context.dtype}, but its encoder {type(encoder).__name__} is {own}. Give "
            f"`context.to({own})`."
        ) from error


def _is_values(context: Any) -> bool:
    """Tell whether a context is numbers to compute with, as pixels are, and not ones that stand for something."""
    return isinstance(context, Tensor) and (context.is_floating_point() or context.dtype == torch.uint8)


def join(context: Tensor | None, architecture: Tensor | None) -> Tensor | None:
    """Return one code of two: both standardised over their length, so that neither drowns the other.

    Parameters
    ----------
    context
        ``(dim,)`` or ``(B, dim)``.
    architecture
        ``(dim,)``, standardised already.
    """
    if context is None or architecture is None:
        return context if architecture is None else architecture
    if context.shape[-1] > 1:
        context = F.layer_norm(context, context.shape[-1:])
    return torch.cat([context, architecture.to(context).expand(*context.shape[:-1], -1)], dim=-1)
