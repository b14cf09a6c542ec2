"""A phase of a run, told to whoever watches: a file, a line, or nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

__all__ = ["Phase", "State", "Watcher", "advance", "is_watched", "phase", "watching"]


@dataclass(frozen=True)
class State:
    """Where a run is.

    Parameters
    ----------
    phase
        Its name, as it is shown: ``search``, ``comparing``, ``re-ranking``, ``final training``.
    done, total
        How much of the phase is over, and how much there is, both in ``unit``; a part of one counts too. ``None``:
        nobody knows.
    unit
        What is counted, such as ``epoch``.
    metrics
        The last known ones, by name.
    began, told
        When the phase began and when this was told, seconds since the epoch.
    """

    phase: str
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    told: float = field(default_factory=time.time)

    @property
    def share(self) -> float | None:
        """How much of the phase is over, from 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds that are left of the phase at its pace so far."""
        return (self.told - self.began) * (1 - self.share) / self.share if self.share else None


Watcher = Callable[[State], None]
_watchers: list[Watcher] = []
_open: list[Phase] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """For a block, tell a function where the run is."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def is_watched() -> bool:
    """Whether anybody is told."""
    return bool(_watchers)


class Phase:
    """An open phase; :func:`phase` gives it."""

    def __init__(self, state: State, tells: bool):
        self.state, self._tells = state, tells

    def at(self, done: float | None = None, **metrics: float) -> None:
        """Say how much is done, and what was measured last; what is not given stays as it was."""
        done = self.state.done if done is None else done
        self.state = replace(self.state, done=done, metrics={**self.state.metrics, **metrics}, told=time.time())
        self.tell()

    def advance(self, by: float = 1.0, **metrics: float) -> None:
        """Say that so much more is done."""
        self.at(self.state.done + by, **metrics)

    def tell(self) -> None:
        """Tell all who watch."""
        for watcher in list(_watchers) if self._tells else ():
            watcher(self.state)


@contextmanager
def phase(name: str, total: float | None = None, unit: str = "", tells: bool = True) -> Iterator[Phase]:
    """Open a phase for a block; who watches is told at its start, at each :meth:`Phase.at`, and of the one around.

    Parameters
    ----------
    name, total, unit
        As of :class:`State`.
    tells
        ``False`` in all but the first of several processes: one tells for all.

    Examples
    --------
    >>> with watching(lambda state: print(state.phase, state.done, "of", state.total)):
    ...     with phase("comparing", total=2) as now:
    ...         now.advance()
    comparing 0.0 of 2
    comparing 1.0 of 2
    """
    opened = Phase(State(name, total=total, unit=unit), tells)
    _open.append(opened)
    opened.tell()
    try:
        yield opened
    finally:
        _open.remove(opened)
        if _open:
            _open[-1].at()


def advance(by: float = 1.0, **metrics: float) -> None:
    """Say that so much more is done of the innermost open phase, if there is one."""
    if _open:
        _open[-1].advance(by, **metrics)
