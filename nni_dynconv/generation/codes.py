"""Codes: what the controller looks at, as one vector a set of weights. Contexts are checked and encoded here."""

from __future__ import annotations

import traceback
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..errors import ConfigError, ContextError, DynConvError, ExportError, ShapeError

__all__ = ["check_context", "dim_of", "encode", "is_shared", "join", "sets_of"]


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
    """Return how many samples, or blocks of some, a code is for; 1 where all share it."""
    return 1 if is_shared(code) else code.shape[0]  # type: ignore[union-attr]


def is_shared(code: Tensor | None) -> bool:
    """Whether all samples share a code: ``(dim,)``, or a map ``(dim, Gh, Gw)``."""
    return code is None or code.dim() in (1, 3)


def check_context(encoder: nn.Module | None, context: Any, index: Any = None, caller: str = "mutator") -> None:
    """Check that a context is there where one is wanted, and only there.

    Parameters
    ----------
    caller
        What is called with it: a ``mutator``, or a frozen or loaded ``network``.

    Raises
    ------
    ContextError
        In words that say what to call.
    """
    if context is None and index is not None:
        raise ContextError(
            f"`index` says which context each sample has, but there is no context. Call "
            f"`{caller}(x, context=c, index=i)`."
        )
    if encoder is None and context is not None:
        raise ContextError(f"A context was given, but {_UNWANTED[caller]}")
    if encoder is not None and context is None:
        way_out = "or the space as `space((x, c))`" if caller == "mutator" else f"or `{caller}((x, c))`"
        raise ContextError(
            f"The context is missing: this network's weights are made from one "
            f"({name_of(encoder)}). Call `{caller}(x, context=c)`, {way_out}."
        )


_UNWANTED = {
    "mutator": "the mutator has no context encoder. Give it one: "
    "`DynamicWeightMutator(space, context=VectorContext(D, dim))`, or leave the context out.",
    "network": "this network's weights are made from none. Leave it out: `network(x)`.",
}


def name_of(encoder: nn.Module) -> str:
    """Return what to call an encoder: the class that was written, where it was read from a file."""
    inside = list(encoder.children()) if isinstance(encoder, fx.GraphModule) else [encoder]  # of an earlier file
    name = inside[0]._get_name() if len(inside) == 1 else "Module"
    return "its encoder" if name == "Module" else name


def encode(encoder: nn.Module, dim: int | None, context: Any, batch: int | None, caller: str = "mutator") -> Tensor:
    """Return the code of a context: ``(B, dim)``, or ``(dim,)`` where one serves all samples; maps: ``... Gh Gw``.

    Parameters
    ----------
    dim
        Length of the code.
    batch
        Samples in the input, where that is known.
    caller
        As of :func:`check_context`.

    Raises
    ------
    ContextError
        The context is of another batch size or type, the encoder does not take it, or gives no vectors of its length.
    """
    code = _run(encoder, context)
    if not isinstance(code, Tensor):
        raise ContextError(f"{name_of(encoder)} must give (B, {dim}), but gave a {type(code).__name__}.")
    if code.dim() not in (2, 4) or code.shape[1] != dim:
        raise ContextError(f"{name_of(encoder)} must give (B, {dim}), but gave {tuple(code.shape)}.")
    if code.shape[0] == 1:
        return code[0]
    if batch is not None and code.shape[0] != batch:
        raise ContextError(
            f"The context has {code.shape[0]} samples, but the input has {batch}. Give one context a sample, one for "
            f"the whole batch, or say which context each sample has: `{caller}(x, context=c, index=i)`."
        )
    return code


def _run(encoder: nn.Module, context: Any) -> Any:
    try:
        return encoder(context)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        read = hasattr(encoder, "call_signature") and isinstance(error, (ShapeError, ExportError))  # from a file
        refusal = None if isinstance(error, DynConvError) and not read else _refusal(encoder, context, error, read)
        if refusal is None:
            raise
        raise ContextError(refusal) from error


def _refusal(encoder: nn.Module, context: Any, error: Exception, read: bool) -> str | None:
    """Say why an encoder does not take a context; ``None`` where the error may be the encoder's own."""
    name, own = name_of(encoder), next((one.dtype for one in encoder.parameters() if one.is_floating_point()), None)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    looked_up = next((frame.f_locals for frame in frames if frame.f_code is F.embedding.__code__), None)
    if looked_up is not None:
        return _lookup_refused(name, looked_up["input"], looked_up["weight"].shape[0])
    if own is not None and _is_values(context) and context.dtype != own:
        return f"The context is {context.dtype}, but its encoder {name} is {own}. Give `context.to({own})`."
    if not read and not any(_is_first_layer(frame, context) for frame in frames):
        return None
    given = f"{tuple(context.shape)}, {context.dtype}" if isinstance(context, Tensor) else f"a {type(context).__name__}"
    return f"{name} does not take this context, {given}: {type(error).__name__}: {error}"


def _lookup_refused(name: str, ids: Tensor, rows: int) -> str | None:
    if ids.is_floating_point():
        return f"{name} looks ids up, whole numbers, but was given {ids.dtype}. Give `context.long()`."
    unknown = ids[(ids < 0) | (ids >= rows)]
    if not len(unknown):
        return None
    return f"{name} knows {rows} ids, 0 .. {rows - 1}, but the context names {int(unknown[0])}."


def _is_first_layer(frame: FrameType, context: Any) -> bool:
    """Whether a frame is that of a layer of torch's which was given the context itself."""
    values, place = frame.f_locals, frame.f_globals.get("__name__", "")
    given = any(value is context for key, value in values.items() if key != "self")
    return (
        given
        and isinstance(values.get("self"), nn.Module)
        and place.startswith("torch.nn.modules")
        and (place not in (nn.Module.__module__, nn.Sequential.__module__))
    )


def _is_values(context: Any) -> bool:
    """Tell whether a context is numbers to compute with, as pixels are, and not ones that stand for something."""
    return isinstance(context, Tensor) and (context.is_floating_point() or context.dtype == torch.uint8)


def join(context: Tensor | None, architecture: Tensor | None) -> Tensor | None:
    """Return one code of two, each of its own size; a controller brings both to one.

    Parameters
    ----------
    context
        ``(dim,)`` or ``(B, dim)``; a map, ``(dim, Gh, Gw)`` or ``(B, dim, Gh, Gw)``.
    architecture
        ``(dim,)``.
    """
    if context is None or architecture is None:
        return context if architecture is None else architecture
    own = architecture.to(context)
    if context.dim() > 2:  # a map
        own = own[:, None, None].expand(*context.shape[:-3], -1, *context.shape[-2:])
        return torch.cat([context, own], dim=-3)
    return torch.cat([context, own.expand(*context.shape[:-1], -1)], dim=-1)
