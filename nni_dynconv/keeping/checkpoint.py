"""A plain loop that can be killed and goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CheckpointError
from ..samplers import distributed
from . import generators
from .stopping import Stopping
from .store import Store

__all__ = ["Checkpoint"]


class Checkpoint:
    """Keeps where a loop of your own is, so that it ends after a kill as if nothing had happened.

    After each epoch, every few minutes inside one, and on SIGTERM, SIGHUP or Ctrl-C, what it was given is written with
    the global random generators and those of the loaders. The last two are kept; a damaged one is not read.

    Parameters
    ----------
    folder
        Of this loop alone.
    minutes
        Between two inside an epoch.
    settings
        Plain data that say what the loop is: a checkpoint of others is refused.
    say
        Is told from where it goes on.
    **parts
        What has ``state_dict()`` and ``load_state_dict()``: the mutator, with its sampler and what that has learned,
        optimizers, schedules, modules.

    Attributes
    ----------
    notes
        Plain data of yours that are kept too, such as the best loss so far.

    Raises
    ------
    CheckpointError
        A part has no state; in :meth:`load`, what is there is of another loop, or damaged.

    Notes
    -----
    Of several processes of ``torch.distributed`` each makes one, of the same folder, once they have met. The first one
    writes for all: parts and notes as it has them, and of each its own generators. All restore that. They save and end
    together: :meth:`save` and :meth:`load` are to be called by all.

    An epoch that was begun is gone through from its start, by generators as they were then, and batches that were
    trained on are passed over. A loader's workers must not outlive an epoch (``persistent_workers=False``).

    Examples
    --------
    >>> checkpoint = Checkpoint("runs/mine", mutator=mutator, optimizer=optimizer)  # doctest: +SKIP
    >>> checkpoint.load()  # doctest: +SKIP
    >>> for epoch in checkpoint.epochs(20):  # doctest: +SKIP
    ...     for (x, c), y in checkpoint.batches(loader):
    ...         mutator.reset()
    ...         optimizer.zero_grad()
    ...         F.cross_entropy(mutator(x, context=c), y).backward()
    ...         optimizer.step()
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        minutes: float = 10.0,
        settings: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
        **parts: Any,
    ):
        for name, one in parts.items():
            if not hasattr(one, "state_dict") or not hasattr(one, "load_state_dict"):
                raise CheckpointError(
                    f"`{name}` of a Checkpoint is a {type(one).__name__}, which has no `state_dict()` and "
                    f"`load_state_dict()`. Put plain data into `checkpoint.notes`."
                )
        say = say if distributed.is_first() else _nothing
        self.parts, self.minutes, self.say = parts, minutes, say
        self.notes: dict[str, Any] = {}
        described = {name: _described(one) for name, one in parts.items()}
        self.store = Store(folder, {"settings": dict(settings or {}), "parts": described}, say)
        self.stopping = Stopping(say)
        self.epoch = self.batch = 0
        self._start: dict[str, Any] | None = None  # generators, as an epoch began
        self._loaders: tuple[Any, ...] = ()
        self._waiting: dict[str, Any] | None = None  # a state that is to be restored before the first new batch
        self._written = time.monotonic()
        self._asked: int | None = None  # the signal that one of the processes was sent, as all know

    def state_dict(self) -> dict[str, Any]:
        """Return all of it: parts, notes, how far the loop is, and the generators of each process."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "notes": dict(self.notes),
            "parts": {name: one.state_dict() for name, one in self.parts.items()},
            "samples": {name: one.sample for name, one in self.parts.items() if _draws(one)},
            "gradients": {name: _gradients(one) for name, one in self.parts.items() if self.batch},
            "own": distributed.of_all(self._own()),
        }

    def _own(self) -> dict[str, Any]:
        return {
            "start": self._start,
            "generators": generators.position(),
            "loaders": generators.of_loaders(self._loaders),
        }

    def save(self) -> Path:
        """Write a checkpoint now, between two batches; the loop does so by itself after each epoch."""
        state = self.state_dict()
        self.store.newest = by_first(lambda: self.store.write(state))
        self._written = time.monotonic()
        return self.store.newest

    def load(self) -> bool:
        """Take up the newest checkpoint, if there is one; return whether there was."""
        state, self.store.newest = by_first(lambda: (self.store.read(), self.store.newest))
        if state is None:
            return False
        processes, here = len(state["own"]), distributed.count()
        if processes != here:
            raise CheckpointError(
                f"The checkpoint `{self.store.newest}` was written by {processes} processes, but here are {here}. Go "
                f"on with as many, or remove the folder `{self.store.folder}` to begin anew."
            )
        state = {**state, **state.pop("own")[distributed.number()]}
        self._waiting, self.epoch, self.batch = state, state["epoch"], state["batch"]
        self._restore(state)
        self.say(f"Goes on after epoch {self.epoch}, batch {self.batch}: `{self.store.newest}`.")
        return True

    def clear(self) -> None:
        """Remove the checkpoints: the loop is over."""
        by_first(self.store.clear)

    def epochs(self, count: int) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, from the one that was begun on; save after each."""
        with self.stopping.listening():
            while self.epoch < count:
                yield self.epoch
                self.epoch, self.batch, self._start = self.epoch + 1, 0, None
                self.save()
                self._is_due()
                self._end_if_asked()

    def batches(self, *loaders: Any) -> Iterator[Any]:
        """Yield the batches of an epoch that are left; of several loaders tuples, until the shortest ends.

        Raises
        ------
        CheckpointError
            A loader can be gone through once only; or it has fewer batches than were trained on.
        """
        waiting, self._waiting = self._waiting, None
        self._loaders = loaders
        if waiting is not None and waiting["batch"]:
            generators.set_position(waiting["start"]["generators"])
            generators.set_loaders(loaders, waiting["start"]["loaders"])
        elif waiting is not None:
            self._restore(waiting)
            generators.set_loaders(loaders, waiting["loaders"] or generators.of_loaders(loaders))
        self._start = {"generators": generators.position(), "loaders": generators.of_loaders(loaders)}
        iterator = _through(loaders)
        for number in range(self.batch):
            if next(iterator, self) is self:
                raise CheckpointError(
                    f"{self.batch} batches were trained on, but the loader has {number} now. Give the data that the "
                    f"checkpoint was written with."
                )
        if waiting is not None and waiting["batch"]:
            self._restore(waiting)
            generators.set_loaders(loaders, waiting["loaders"])
        for batch in iterator:
            yield batch
            self.batch += 1
            if self._is_due():
                self.save()
                self._end_if_asked()

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint, in all processes: by the first one's clock, or one was asked to end."""
        late = time.monotonic() - self._written > 60 * self.minutes
        told = distributed.of_all((self.stopping.asked, late))
        self._asked = next((asked for asked, _ in told if asked is not None), None)
        return self._asked is not None or told[0][1]

    def _end_if_asked(self) -> None:
        if self._asked is not None:
            self.say(f"Start the same again: it goes on from `{self.store.newest}`.")
            self.stopping.asked = self._asked
            self.stopping.end()

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, one in self.parts.items():
            one.load_state_dict(state["parts"][name])
            if name in state["samples"]:
                one.sample = state["samples"][name]
            for key, gradient in (state["gradients"].get(name) or {}).items():
                one.get_parameter(key).grad = gradient
        self.notes = dict(state["notes"])
        generators.set_position(state["generators"])


def by_first(work: Callable[[], Any]) -> Any:
    """Return what the first process's work gives, in all of them.

    Raises
    ------
    CheckpointError
        It does so there.
    """
    found, error = None, None
    if distributed.is_first():
        try:
            found = work()
        except CheckpointError as raised:
            error = raised
    found, error = distributed.of_first((found, error))
    if error is not None:
        raise error
    return found


def _nothing(words: str) -> None:
    """Say nothing: the first process does."""


def _described(one: Any) -> dict[str, Any]:
    """Return what a part is, as far as a state of another could be taken for its own."""
    shapes = {name: list(value.shape) for name, value in one.named_parameters()} if isinstance(one, nn.Module) else {}
    return {"class": type(one).__qualname__, "shapes": shapes}


def _draws(one: Any) -> bool:
    return isinstance(one, nn.Module) and hasattr(one, "sampler") and hasattr(one, "sample")


def _gradients(one: Any) -> dict[str, Any]:
    found = one.named_parameters() if isinstance(one, nn.Module) else ()
    return {name: value.grad for name, value in found if value.grad is not None}


def _through(loaders: tuple[Any, ...]) -> Iterator[Any]:
    iterators = [iter(one) for one in loaders]
    for one, iterator in zip(loaders, iterators, strict=True):
        if one is iterator:
            raise CheckpointError(
                f"`checkpoint.batches()` was given a {type(one).__name__}, which can be gone through once only, but an "
                f"epoch that was begun is gone through anew. Give a loader or a list."
            )
    return iterators[0] if len(loaders) == 1 else zip(*iterators, strict=False)
