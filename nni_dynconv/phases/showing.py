"""One line that lives: phase, bar, time left, metrics; plain lines, now and then, where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .telling import State, is_watched, watching

__all__ = ["Line", "shown", "words"]

SILENCE = 8.0
"""Seconds between two plain lines of one phase, whether anything is new or not."""


def words(state: State, now: float | None = None) -> str:
    """Return a state as a line.

    >>> words(State("search", 1.5, 4, "epoch", {"val_loss": 0.25}, began=0.0, told=30.0), now=30.0)
    'search, epoch 2 of 4, 38 %, val_loss 0.25, 0:30 gone, about 0:50 left'
    """
    now = time.time() if now is None else now
    parts = [_counted(state)]
    parts += [] if state.share is None else [f"{100 * state.share:.0f} %"]
    parts += [f"{name} {value:.4g}" for name, value in state.metrics.items()]
    parts.append(f"{_clock(now - state.began)} gone")
    parts += [] if state.left is None else [f"about {_clock(max(state.left - (now - state.told), 0))} left"]
    return ", ".join(parts)


def _counted(state: State) -> str:
    if not state.unit or state.total is None:
        return state.phase
    return f"{state.phase}, {state.unit} {min(int(state.done) + 1, int(state.total))} of {state.total:g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Line:
    """Shows where one or several runs are; between :meth:`__enter__` and :meth:`__exit__` nothing is silent for long.

    Parameters
    ----------
    say
        Writes a plain line; by default to the standard error.
    live
        Whether there is a terminal to draw on; by default whether the standard error is one.
    """

    def __init__(self, say: Callable[[str], None] | None = None, live: bool | None = None):
        self.live = sys.stderr.isatty() if live is None else live
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._states: dict[str, State] = {}
        self._told: dict[str, tuple[str, float]] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Line:
        if self.live:
            self._bars = _bars()
            self._bars.start()
        else:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """Write a line that stays, above the one that lives."""
        with self._lock:
            if self._bars is None:
                self._told |= {who: (phase, time.monotonic()) for who, (phase, _) in self._told.items()}
            self._say(text)

    def show(self, state: State, who: str = "") -> None:
        """Show where a run is.

        Parameters
        ----------
        who
            Which of several runs, such as ``trial 3``.
        """
        with self._lock:
            self._states[who] = state
            if self._bars is not None:
                self._draw(state, who)
            else:
                self._write(who)

    def forget(self, who: str = "") -> None:
        """Show a run no longer."""
        with self._lock:
            self._states.pop(who, None)
            self._told.pop(who, None)
            if who in self._tasks:
                self._bars.remove_task(self._tasks.pop(who))

    def _draw(self, state: State, who: str) -> None:
        phase, _ = self._told.get(who, ("", 0.0))
        if who not in self._tasks:
            self._tasks[who] = self._bars.add_task(who, total=None, told="", left="")
        elif phase != state.phase:
            self._bars.reset(self._tasks[who])
        self._told[who] = state.phase, 0.0
        told = "  ".join(f"{name} {value:.4g}" for name, value in state.metrics.items())
        left = "" if state.left is None else f"{_clock(state.left)} left"
        fields = {"description": " ".join(filter(None, [who, _counted(state)])), "told": told, "left": left}
        self._bars.update(self._tasks[who], completed=state.done, total=state.total, **fields)

    def _write(self, who: str) -> None:
        """Write a plain line where the phase is a new one, or the last line is old."""
        phase, when = self._told.get(who, ("", 0.0))
        state, now = self._states[who], time.monotonic()
        if state.phase != phase or now - when >= SILENCE:
            self._told[who] = state.phase, now
            self._say("  " + ": ".join(filter(None, [who, words(state)])))

    def _beat(self) -> None:
        while not self._over.wait(1.0):
            with self._lock:
                for who in list(self._states):
                    self._write(who)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text, told, left = (TextColumn(f"{{task.{one}}}") for one in ("description", "fields[told]", "fields[left]"))
    columns = (text, BarColumn(bar_width=24), TimeElapsedColumn(), left, told)
    aside = sys.stdout.isatty()  # then what is printed stands above the line; a file gets it as it is
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=aside)


@contextmanager
def shown(unless: bool = False) -> Iterator[None]:
    """For a block, show where this process is, unless somebody watches already.

    Parameters
    ----------
    unless
        Whether something else shows it, such as Lightning's own bar.
    """
    if unless or is_watched():
        yield
        return
    with Line() as line, watching(line.show):
        yield
