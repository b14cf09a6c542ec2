"""What a network is called with: its own inputs, the context, and which context each sample has."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import ContextError, DynConvError

__all__ = ["UNASKED", "Call", "Takes", "is_pair", "is_unasked", "pair_of", "refusing_pairs", "takes_of", "unasked_in"]

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
