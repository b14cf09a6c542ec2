"""The open forward: which sample, which context, and who makes the weights. Ops and super-modules read it here.

The scope is a context variable, so that forwards of different threads do not meet. What recomputes a forward later,
such as activation checkpointing in a backward, runs outside it: a module then enters the scope again that it last saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .errors import ScopeError

__all__ = ["Gate", "Scope", "close", "current", "current_of", "enter", "open_", "seen_by", "weights_for"]

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Gate:
    """What of one choice takes part in a forward.

    Parameters
    ----------
    values
        The candidates that run.
    weights
        ``(len(values),)``, one factor an output, with gradient where the sampler learns by it; ``None`` for ones.
    """

    values: Sequence[Any]
    weights: Tensor | None = None


@dataclass
class Scope:
    """One forward.

    Parameters
    ----------
    owner
        Who opened it: tells the scopes of one network inside another apart.
    make
        Makes the tensors of the named site.
    gate
        Tells what of a label's candidates runs; ``None`` where no choice is left, or where NNI's strategy decides.
    """

    owner: object
    make: Callable[[str], Weights]
    gate: Callable[[str], Gate] | None = None
    sample: Mapping[str, Any] | None = None
    context: Any = None
    token: Token[Scope | None] | None = None
    outer: Scope | None = None
    again: Callable[[], Scope] | None = None
    """Makes the same scope anew: for a forward that first ran without gradient inside one that wanted it."""
    made: dict[str, Weights] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)

    def gate_of(self, label: str) -> Gate | None:
        """Return what of a label runs, the same throughout this forward; ``None`` where that is not decided here."""
        if self.gate is None:
            return None
        if label not in self.gates:
            self.gates[label] = self.gate(label)
        return self.gates[label]

    def weights(self, site: str) -> Weights:
        """Return the tensors of a site, made on its first use in this forward."""
        if site not in self.made:
            self.made[site] = self.make(site)
        return self.made[site]


_scope: ContextVar[Scope | None] = ContextVar("nni_dynconv_scope", default=None)
_last_seen: WeakKeyDictionary[nn.Module, tuple[Scope, bool]] = WeakKeyDictionary()  # and whether with gradient


def current() -> Scope | None:
    """Return the open scope, if there is one."""
    return _scope.get()


def open_(scope: Scope) -> Token[Scope | None]:
    """Open a scope; whoever does calls :func:`close` in a ``finally``."""
    scope.outer = _scope.get()
    return _scope.set(scope)


def current_of(owner: object) -> Scope | None:
    """Return the innermost open scope of an owner."""
    opened = _scope.get()
    while opened is not None and opened.owner is not owner:
        opened = opened.outer
    return opened


def close(scope: Scope, token: Token[Scope | None]) -> None:
    """Close a scope and let its weights go."""
    _scope.reset(token)
    scope.outer = None
    scope.made.clear()
    scope.gates.clear()


@contextmanager
def enter(scope: Scope) -> Iterator[Scope]:
    """Open a scope for a block."""
    token = open_(scope)
    try:
        yield scope
    finally:
        close(scope, token)


def seen_by(module: nn.Module) -> Scope | None:
    """Return the open scope, or, in a backward that runs a forward again, the one that this module was last in."""
    opened = _scope.get()
    if opened is not None:
        if not torch.compiler.is_compiling():
            _last_seen[module] = opened, torch.is_grad_enabled()
        return opened
    in_backward = torch._C._current_graph_task_id() != -1  # torch has no public word for it
    if not in_backward or module not in _last_seen:
        return None
    last, with_gradient = _last_seen[module]
    return last if with_gradient or last.again is None else last.again()


def weights_for(op: nn.Module, site: str | None, name: str) -> Weights:
    """Return the weights that an op uses now.

    Parameters
    ----------
    op
        The op that asks.
    site
        Its site.
    name
        What to call it in an error.

    Raises
    ------
    ScopeError
        No forward is open, or the op is of a network that has no controller.
    """
    opened = seen_by(op)
    if opened is None:
        raise ScopeError(
            f"Layer `{site or name}` has no weights. Call the network through the mutator, or inside "
            f"`with mutator.using(sample):`."
        )
    if site is None:
        raise ScopeError(
            f"Layer `{name}` stands in a network that no controller knows. Make a mutator of the whole network: "
            f"`DynamicWeightMutator(space, ...)`."
        )
    if opened is _scope.get():
        return opened.weights(site)
    with enter(opened):
        return opened.weights(site)
