"""The open forward: which sample, which context, and who makes the weights. Ops and super-modules read it here.

Each thread has its own, so that forwards of different threads do not meet; unlike a context variable, ``torch.compile``
can trace it. What recomputes a forward later, such as activation checkpointing in a backward, runs outside it: a module
then enters the scope again that it last saw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import ScopeError
from ..functional import form_all, is_saving_watched
from .batch import Blocks
from .repeats import Order, order_told
from .spec import Site

__all__ = [
    "Gate",
    "Scope",
    "close",
    "current",
    "current_of",
    "enter",
    "in_backward",
    "is_shared_again",
    "keeping",
    "open_",
    "order_for",
    "ready_for",
    "seen_by",
    "weights_for",
]

T = TypeVar("T")

Weights = Mapping[str, Any]
"""Tensors by name; by their parts, as :class:`~nni_dynconv.functional.LowRank`, where whoever asks takes those."""
Key = tuple[str, tuple[bool, bool]]
"""A site, and whether its weights are made with gradient, and where activations are checkpointed."""


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
        Makes the tensors of the named site, and at the same time, unless it is wanted alone, of some that come next.
    gate
        Tells what of a label's candidates runs; ``None`` where no choice is left, or where NNI's strategy decides.
    sample, sites
        The architecture and the sites that run in it, as far as they are known.
    context
        As the encoder takes it.
    blocks
        Samples that share a context, where some do and some do not.
    shares
        How much of each candidate of a label takes part, for the architecture's code.
    from_input
        Makes a site's tensors from the input of its op, anew for each; ``None`` where contexts are given.
    batch
        Returns how many samples have weights of their own, or of their block; ``None`` where all share them, or where
        weights are made for whatever an op sees.
    around
        Whether it was opened for one forward, and not for a block of code.
    """

    owner: object
    make: Callable[[str, bool], Mapping[str, Weights]]
    gate: Callable[[str], Gate] | None = None
    sample: Mapping[str, Any] | None = None
    sites: Sequence[Site] = ()
    context: Any = None
    blocks: Blocks | None = None
    shares: Callable[[str], Tensor] | None = None
    from_input: Callable[[str, Tensor], Weights] | None = None
    batch: Callable[[], int | None] = lambda: None
    ready: Callable[[str, Tensor], Tensor | None] | None = None
    """Applies what stands in for the op of a site, where something does; ``None``: nothing does anywhere."""
    around: bool = False
    outer: Scope | None = None
    backward: int = -1
    """The backward that it was opened in, or -1."""
    again: Callable[[], Scope] | None = None
    """Makes the same scope anew: for a forward that first ran without gradient inside one that wanted it."""
    made: dict[Key, Weights] = field(default_factory=dict)
    pulled: set[Key] = field(default_factory=set)
    gates: dict[str, Gate] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    """Sites whose ops saw one sample for all."""

    @property
    def counts(self) -> tuple[int, ...] | None:
        """Samples that each set of weights serves, in order; ``None`` where it is one each, or all."""
        return None if self.blocks is None else self.blocks.counts

    def anew(self) -> Scope:
        """Return a scope of the same forward, for running more of it later: nothing is made in it yet."""
        return replace(self, around=False, outer=None, made={}, pulled=set(), gates={}, shared=set())

    def gate_of(self, label: str) -> Gate | None:
        """Return what of a label runs, the same throughout this forward; ``None`` where that is not decided here."""
        if self.gate is None:
            return None
        if label not in self.gates:
            self.gates[label] = self.gate(label)
        return self.gates[label]

    def weights(self, site: str, factors: bool = False) -> Weights:
        """Return the tensors of a site, made on its first use in this forward; products as ``factors`` on request.

        With gradient they are kept, as autograd keeps them anyway. Without, they are let go once they are pulled; for
        an op that runs again they are made again, and then kept.
        """
        mode = torch.is_grad_enabled(), is_saving_watched()  # then what is saved may be computed again, op by op
        key = site, mode
        again = key in self.pulled
        if key not in self.made:
            for name, weights in self.make(site, again or mode[1]).items():
                self.made[name, mode] = weights
        if not factors:
            self.made[key] = form_all(self.made[key])
        self.pulled.add(key)
        return self.made[key] if mode[0] or again else self.made.pop(key)


class _Thread(threading.local):
    scope: Scope | None = None


_thread = _Thread()
_last_seen: WeakKeyDictionary[nn.Module, tuple[Scope, bool]] = WeakKeyDictionary()  # and whether with gradient
_last_told: WeakKeyDictionary[nn.Module, tuple[Scope | None, Order | None]] = WeakKeyDictionary()


def current() -> Scope | None:
    """Return the open scope, if there is one."""
    return _thread.scope


def open_(scope: Scope) -> None:
    """Open a scope; whoever does calls :func:`close` in a ``finally``."""
    scope.outer = _thread.scope
    scope.backward = _current_backward()
    _thread.scope = scope


def current_of(owner: object) -> Scope | None:
    """Return the innermost open scope of an owner."""
    opened = _thread.scope
    while opened is not None and opened.owner is not owner:
        opened = opened.outer
    return opened


def close(scope: Scope) -> None:
    """Close a scope and let its weights go."""
    _thread.scope = scope.outer
    scope.outer = None
    scope.made.clear()
    scope.pulled.clear()
    scope.gates.clear()
    scope.shared.clear()


@contextmanager
def enter(scope: Scope) -> Iterator[Scope]:
    """Open a scope for a block."""
    open_(scope)
    try:
        yield scope
    finally:
        close(scope)


def _current_backward() -> int:
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()  # torch has no public word for it


def in_backward() -> bool:
    """Whether this runs in a backward, where activation checkpointing runs parts of a forward again."""
    return _current_backward() != -1


def seen_by(module: nn.Module) -> Scope | None:
    """Return the open scope, or, in a backward that runs a forward again, the one that this module was last in."""
    opened, backward = _thread.scope, _current_backward()
    if opened is not None and opened.backward == backward:
        if not torch.compiler.is_compiling():
            _last_seen[module] = opened, torch.is_grad_enabled()
        return opened
    if backward == -1 or module not in _last_seen:
        return opened
    last, with_gradient = _last_seen[module]
    return last if with_gradient or last.again is None else last.again()


def keeping(run: Callable[..., T], module: nn.Module) -> Callable[..., T]:
    """Return what calls ``run`` in a scope like the one that this module sees now, also long after that has closed."""
    seen = seen_by(module)
    if seen is None:
        return run

    def inside(*args: Any, **kwargs: Any) -> T:
        with enter(seen.anew()):
            return run(*args, **kwargs)

    return inside


def is_shared_again(site: str) -> bool:
    """Whether an op that sees one sample for all did so before in the forward that is open; not where it runs again.

    A block of code, which may have several forwards in it, cannot tell.
    """
    opened = _thread.scope
    if opened is None or opened.again is None or opened.backward != _current_backward():
        return False
    again = site in opened.shared
    opened.shared.add(site)
    return again


def order_for(op: nn.Module) -> Order | None:
    """Return what the block around an op says of repeated samples, or said when a forward ran that runs again now.

    Of an op that ran twice in a forward, in blocks that say different things, it is not known which is run again.
    """
    order = order_told()
    if torch.compiler.is_compiling():
        return order
    if _current_backward() != -1:
        return order or _last_told.get(op, (None, None))[1]
    if order is not None:
        before, other = _last_told.get(op, (None, None))
        _last_told[op] = _thread.scope, None if before is _thread.scope and other != order else order
    return order


def ready_for(op: nn.Module, site: str | None, x: Tensor) -> Tensor | None:
    """Return what stands in for an op makes of its input; ``None`` where nothing does."""
    opened = seen_by(op)
    return None if opened is None or opened.ready is None or site is None else opened.ready(site, x)


def weights_for(
    op: Any, site: str | None, name: str, x: Tensor, factors: bool = False
) -> tuple[Weights, tuple[int, ...] | None, int | None]:
    """Return the weights that an op uses now, how many samples each set of them serves, and samples in all.

    The last two are :attr:`Scope.counts` and :attr:`Scope.batch`.

    Parameters
    ----------
    op
        The op that asks.
    site
        Its site.
    name
        What to call it in an error.
    x
        Its input.
    factors
        Whether it takes weights by their parts, such as :class:`~nni_dynconv.functional.LowRank`.

    Raises
    ------
    ScopeError
        No forward is open, or the op is of a network that has no controller.
    """
    opened = seen_by(op)
    if opened is None:
        ways = {
            "mutator": "Call the network through the mutator, or inside `with mutator.using(sample):`.",
            "network": "Call the whole network, `network(x, context)`, and not its parts.",
        }
        raise ScopeError(f"Layer `{site or name}` has no weights. {ways[op.caller]}")
    if site is None:
        raise ScopeError(
            f"Layer `{name}` stands in a network that no controller knows. Make a mutator of the whole network: "
            f"`DynamicWeightMutator(space, ...)`."
        )
    if opened.from_input is None and opened is _thread.scope:
        return opened.weights(site, factors), opened.counts, opened.batch()
    made = opened.make(site, True)[site] if opened.from_input is None else opened.from_input(site, x)
    return made if factors else form_all(made), opened.counts, opened.batch()
