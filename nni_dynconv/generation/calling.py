"""What a network is called with: its own inputs, the context, and which context each sample has; also what it was."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ContextError, DynConvError

__all__ = [
    "UNASKED",
    "Call",
    "Example",
    "Takes",
    "is_pair",
    "is_unasked",
    "pair_of",
    "refuse_context",
    "refusing_pairs",
    "remembered",
    "takes_of",
    "unasked_in",
]

UNASKED = (
    "Its input is a pair, as `(x, context)` is, but no context encoder takes the second part. Give one, "
    "`context=VectorContext(D, dim)`, in a YAML under `context`, or call it with `x` alone."
)


class Call(NamedTuple):
    """One call, taken apart.

    Parameters
    ----------
    args, kwargs
        The network's own.
    context, index
        As of :meth:`~nni_dynconv.DynamicWeightMutator.forward`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: Any = None
    index: Any = None


def is_pair(value: Any) -> bool:
    """Whether a batch's first part may be ``(x, context)``; a named tuple is an input of its own."""
    return type(value) in (tuple, list) and len(value) == 2


def pair_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], wanted: bool) -> Call:
    """Take ``network(x, context=c, index=i)`` or ``network((x, c))`` apart.

    Parameters
    ----------
    wanted
        Whether the network takes a context: a pair is its own input else.

    Examples
    --------
    >>> pair_of((("x", "c"),), {}, wanted=True)
    Call(args=('x',), kwargs={}, context='c', index=None)
    """
    own = {key: value for key, value in kwargs.items() if key not in ("context", "index")}
    if "context" not in kwargs and wanted and len(args) == 1 and is_pair(args[0]):
        return Call((args[0][0],), own, args[0][1], kwargs.get("index"))
    return Call(args, own, kwargs.get("context"), kwargs.get("index"))


class Takes(NamedTuple):
    """Which positional inputs a network's forward takes, so that a context behind them is told apart.

    Parameters
    ----------
    names
        Of its positional arguments, in order.
    needed
        How many of them have no default.
    any_number
        Whether it takes ``*inputs``.
    """

    names: tuple[str, ...]
    needed: int
    any_number: bool = False

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], wanted: bool) -> Call:
        """Take a call apart: also ``network(x, c)``, ``network(a, b, c)`` and ``network((a, b), c)``.

        Parameters
        ----------
        wanted
            As of :func:`pair_of`.

        Examples
        --------
        >>> Takes(("a", "b"), 2).call((("a", "b"), "c"), {}, wanted=True)
        Call(args=('a', 'b'), kwargs={}, context='c', index=None)
        >>> Takes(("x", "mask"), 1).call(("x", "mask", "c"), {}, wanted=True)
        Call(args=('x', 'mask'), kwargs={}, context='c', index=None)
        """
        called = pair_of(args, kwargs, wanted)
        needed = sum(name not in called.kwargs for name in self.names[: self.needed])
        if "context" not in kwargs and called.args is args:
            called = self._without_context(called, needed, wanted)
        if needed > 1 and len(called.args) == 1 and type(called.args[0]) is tuple:
            called = called._replace(args=called.args[0])
        return called

    def _without_context(self, called: Call, needed: int, wanted: bool) -> Call:
        args = called.args
        most = math.inf if self.any_number else sum(name not in called.kwargs for name in self.names)
        if needed > 1 and args and type(args[0]) is tuple:  # several inputs, as one
            needed, most = 1, 1
        if len(args) > max(most + 1, 2) and called.index is None:
            return called._replace(args=args[:-2], context=args[-2], index=args[-1])
        if len(args) > most or (wanted and len(args) > max(needed, 1)):
            return called._replace(args=args[:-1], context=args[-1])
        return called


def takes_of(network: nn.Module) -> Takes:
    """Return which inputs a network's forward takes.

    Examples
    --------
    >>> takes_of(nn.Bilinear(2, 2, 2))
    Takes(names=('input1', 'input2'), needed=2, any_number=False)
    """
    told = getattr(network, "call_signature", None) or inspect.signature(network.forward)  # of one read from a file
    given = list(told.parameters.values())
    named = [one for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = sum(one.default is one.empty for one in named)
    return Takes(tuple(one.name for one in named), needed, any(one.kind is one.VAR_POSITIONAL for one in given))


def refuse_context(called: Call) -> None:
    """Refuse a context where weights are made already.

    Raises
    ------
    ContextError
        One is given.
    """
    if called.context is not None or called.index is not None or (len(called.args) == 1 and is_pair(called.args[0])):
        raise ContextError(
            "A context was given, but the weights are fixed for one that was given before. Call `network(x)`, or leave "
            "the block of `network.fixed(context)`."
        )


def is_unasked(args: tuple[Any, ...], encoder: nn.Module | None) -> bool:
    """Whether a network without an encoder was called with what may be a context too."""
    return encoder is None and len(args) == 1 and is_pair(args[0])


@contextmanager
def refusing_pairs(args: tuple[Any, ...], encoder: nn.Module | None) -> Iterator[None]:
    """Where a network that takes no context fails on ``((x, c))``, say that nobody asked for the context.

    Raises
    ------
    ContextError
        From what the network raised.
    """
    if torch.compiler.is_compiling() or not is_unasked(args, encoder):
        yield
        return
    try:
        yield
    except DynConvError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise _unasked(error) from error


def unasked_in(error: BaseException) -> ContextError | None:
    """Return the refusal of a pair that nobody asked for, where a network with an error of its own met one."""
    return _unasked(error) if UNASKED in getattr(error, "__notes__", ()) else None


def _unasked(error: BaseException) -> ContextError:
    return ContextError(f"{UNASKED} ({type(error).__name__}: {error})")


# Remembered, so that whoever saves a network has something to try it on

FEW = 1 << 16
"""Whole numbers are kept up to so many: not every one names something."""


class Seen(NamedTuple):
    """A tensor that was given.

    Parameters
    ----------
    shape, dtype
        Its own.
    values
        The tensor, where it holds few whole numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Tensor | None


class Example(NamedTuple):
    """A call, taken apart, so that tensors can be put in the places of others.

    Parameters
    ----------
    leaves, spec
        As ``torch.utils._pytree`` gives them; a tensor, or what is known of one.
    """

    leaves: list[Any]
    spec: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Example:
        return self

    def __reduce__(self) -> Any:
        return _forgotten, ()  # what it was called with stays in this process

    @classmethod
    def of(cls, call: Call) -> Example:
        """Return a call as it is."""
        return cls(*pytree.tree_flatten(tuple(call)))

    @property
    def is_real(self) -> bool:
        """Whether it holds the tensors themselves, so that :meth:`drawn` draws nothing."""
        return not any(isinstance(one, Seen) and one.values is None for one in self.leaves)

    def drawn(self, batch: int | None = None) -> Call:
        """Return a call with tensors like those that were given, on the CPU.

        Parameters
        ----------
        batch
            Samples; as many as there were, where ``None``.
        """
        generator = torch.Generator().manual_seed(0)
        given = [one for one in self.leaves if isinstance(one, (Seen, Tensor))]
        total = given[0].shape[0] if given and len(given[0].shape) else None
        made = [_drawn(one, generator, total, batch) if isinstance(one, (Seen, Tensor)) else one for one in self.leaves]
        return Call(*pytree.tree_unflatten(made, self.spec))


def _forgotten() -> None:
    """Take the place of an example in another process."""


def remembered(call: Call, before: Example | None) -> Example | None:
    """Return a call with tensors by shape; what was remembered before, where they are no real ones."""
    leaves, spec = pytree.tree_flatten(tuple(call))
    tensors = [one for one in leaves if isinstance(one, Tensor)]
    if any(type(one) not in (Tensor, nn.Parameter) for one in tensors):
        return before
    return Example([_seen(one) if isinstance(one, Tensor) else one for one in leaves], spec)


def _seen(one: Tensor) -> Seen:
    counted = not (one.is_floating_point() or one.is_complex())
    return Seen(tuple(one.shape), one.dtype, one.detach() if counted and one.numel() <= FEW else None)


def _drawn(one: Any, generator: torch.Generator, total: int | None, batch: int | None) -> Tensor:
    values = one if isinstance(one, Tensor) else one.values
    if values is None and (one.dtype.is_floating_point or one.dtype.is_complex):
        made = torch.randn(one.shape, generator=generator).to(one.dtype)
    elif values is None:
        made = torch.zeros(one.shape, dtype=one.dtype)
    else:
        made = values.detach().cpu()
    if batch is None or total is None or not made.dim() or made.shape[0] != total:
        return made
    rows = torch.arange(batch) % total
    return made[rows]
