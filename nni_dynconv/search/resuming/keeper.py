"""What a run has done so far, stage by stage, in its checkpoints."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ...keeping import Stopping, Store, generators
from ...runs import WHERE

__all__ = ["Keeper", "Memo"]

SECONDS = 30.0
"""Between two checkpoints where architectures are measured."""


class Keeper:
    """Keeps what a run has done, and where its stage at hand is; without a store it keeps nothing.

    Parameters
    ----------
    store
        Of the run's checkpoints; ``None``: none are written, and signals do what they always do.
    minutes
        Between two checkpoints inside an epoch.
    drawing
        Loaders, which may have random generators of their own, and what else may.
    say
        Is told from where a run goes on.

    Attributes
    ----------
    now
        What the stage at hand kept, with its name under ``stage``; empty where it has just begun.
    """

    def __init__(
        self,
        store: Store | None = None,
        minutes: float = 10.0,
        drawing: Sequence[Any] = (),
        say: Callable[[str], None] = print,
    ):
        self.store, self.minutes, self.drawing, self.say = store, minutes, drawing, say
        self.stopping = Stopping(say)
        self.beside: Callable[[], Any] = lambda: None
        """Returns what belongs into each checkpoint besides; :attr:`found_beside` is what was there."""
        self.found_beside: Any = None
        self._done: dict[str, Any] = {}
        self._last: str | None = None
        self._outer: dict[str, Any] | None = None  # generators, as the last stage ended
        self.now: dict[str, Any] = {}
        self._written = self._began = time.monotonic()
        self._before = 0.0  # seconds that earlier processes spent

    @property
    def spent(self) -> float:
        """Seconds that the run has been going on for, without those between its processes."""
        return self._before + time.monotonic() - self._began

    def read(self) -> bool:
        """Take up what an earlier process kept; return whether there was anything.

        Raises
        ------
        CheckpointError
            It is of another run, or damaged.
        """
        state = None if self.store is None else self.store.read()
        if state is None or self.store is None:
            return False
        self._done, self._last, self._outer = state["done"], state["last"], state["outer"]
        self.now, self.found_beside, self._before = state["now"], state["beside"], state["spent"]
        self.say(f"The run goes on {_where(self.now, self._last)}: `{self.store.newest}`.")
        return True

    @contextmanager
    def going(self) -> Iterator[None]:
        """For a block, end at the next batch where a signal asks for it."""
        if self.store is None:
            yield
            return
        with self.stopping.listening():
            yield

    # Stages

    def done(self, name: str) -> Any:
        """Return what a stage ended with, and let the generators be where they were then; ``None``: it has not."""
        if name == self._last and self._outer is not None:
            generators.set_position(self._outer["global"])
            generators.set_loaders(self.drawing, self._outer["own"])
        return self._done.get(name)

    def finish(self, name: str, value: Any) -> None:
        """Keep what a stage ended with."""
        if self.store is None:
            return
        self._done[name], self._last, self.now = value, name, {}
        self._outer = {"global": generators.position(), "own": generators.of_loaders(self.drawing)}
        self._write()
        self.end_if_asked()

    def of(self, stage: str) -> dict[str, Any]:
        """Return what a stage kept before it was interrupted; empty where it was another one's turn."""
        return self.now if self.now.get("stage") == stage else {}

    def keep(self, stage: str, **state: Any) -> None:
        """Keep where a stage is."""
        if self.store is not None:
            self.now = {"stage": stage, "generators": generators.position(), **state}
            self._write()

    def add(self, **state: Any) -> None:
        """Keep more of what the stage at hand kept last."""
        self.now = {**self.now, **state}
        self._write()

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint inside an epoch, or one was asked for."""
        return self.stopping.asked is not None or time.monotonic() - self._written > 60 * self.minutes

    def end_if_asked(self) -> None:
        """End the process where a signal asked for it, and say how it goes on.

        Raises
        ------
        SystemExit
            A signal did; Lightning has another status for a ``KeyboardInterrupt``.
        """
        if self.stopping.asked is not None and self.store is not None:
            self.say(f"Stopped. The same run, started again, goes on from `{self.store.newest}`.")
            raise SystemExit(self.stopping.status)

    def over(self) -> None:
        """Remove the checkpoints: nothing is left to do."""
        if self.store is not None:
            self.store.clear()

    def _write(self) -> None:
        if self.store is not None:
            state = {"done": self._done, "last": self._last, "outer": self._outer, "now": self.now}
            path = self.store.write({**state, "beside": self.beside(), "spent": self.spent})
            where = f"{_where(self.now, self._last)} (`{path.name}`)"
            with suppress(OSError):  # it is for who looks on
                (self.store.folder / WHERE).write_text(where, encoding="utf-8")
            self._written = time.monotonic()


class Memo:
    """What was measured at the end of a search, in order: after a kill it is not measured again.

    Parameters
    ----------
    keeper, stage
        Where it is kept.
    asked
        Whether a signal asked for an end, and something took note that goes on: Lightning does, which looks at
        batches of training and validation alone.

    Examples
    --------
    >>> memo = Memo()
    >>> memo.again(lambda: 0.5)
    0.5
    """

    def __init__(self, keeper: Keeper | None = None, stage: str = "", asked: Callable[[], bool] = lambda: False):
        self.keeper, self.stage, self.asked = Keeper() if keeper is None else keeper, stage, asked
        kept = self.keeper.of(stage)
        self._known: list[Any] = list(kept.get("memo", ()))
        self._then = kept.get("then")  # generators, after the last of these
        self._place, self._written = 0, time.monotonic()

    def again(self, measure: Callable[[], Any], large: bool = False) -> Any:
        """Return what was measured at this place before, or measure it.

        Parameters
        ----------
        measure
            Gives plain data and tensors.
        large
            Whether it takes long, so that it is written at once.

        Raises
        ------
        SystemExit
            A signal asked for it.
        """
        if self._place < len(self._known):
            self._place += 1
            if self._place == len(self._known) and self._then is not None:
                generators.set_position(self._then)
            return self._known[self._place - 1]
        found = measure()
        if self.asked():
            raise SystemExit(128 + signal.SIGTERM)
        self._known.append(found)
        self._place += 1
        asked = self.keeper.stopping.asked is not None
        if self.keeper.store is not None and (large or asked or time.monotonic() - self._written > SECONDS):
            self.keeper.add(memo=self._known, then=generators.position())
            self._written = time.monotonic()
            self.keeper.end_if_asked()
        return found


def _where(now: Mapping[str, Any], last: str | None) -> str:
    if not now:
        return f"after its {last}"
    if "memo" in now:
        return f"at the end of its {now['stage']}, after {len(now['memo'])} measurements"
    return f"in its {now['stage']}, in epoch {now['epoch'] + 1} after batch {now['batch']}"
