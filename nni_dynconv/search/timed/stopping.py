"""A training that ends while the run has time left for what comes after it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from ...samplers import distributed
from .limit import TimeLimit
from .needs import Tempo

__all__ = ["StopInTime"]


class StopInTime(Callback):
    """Measures the steps of a training, and ends it after a batch when the next would take time that is not its own.

    Parameters
    ----------
    limit
        Of the run.
    left
        Returns the seconds that are left for this training, by what its parts take.
    phase
        How it is called.
    before
        What comes after it, in words.

    Notes
    -----
    Nothing is ended by one measured batch alone, which is slower than others, unless time is over. Why a training was
    ended stands in a file: it may happen in processes that Lightning forks.
    """

    of_search = True  # what comes after a search has one of its own

    def __init__(self, limit: TimeLimit, left: Callable[[Tempo], float], phase: str, before: str):
        self.limit, self._left, self.phase, self.before = limit, left, phase, before
        self._place = tempfile.TemporaryDirectory(prefix="in-time-")
        self._file = Path(self._place.name, "cut.txt")
        self._since = limit.spent  # when the last batch or validation was over
        self._beside = 0.0  # of the batch at hand, what the weights do not learn in
        self._batches, self._seconds = 0, 0.0
        self._first = 0.0
        self._fastest = math.inf
        self._validating, self._validation = 0.0, 0.0
        self._of_epoch = math.inf

    def __deepcopy__(self, memo: dict[int, Any]) -> StopInTime:
        return self  # it is of one run

    @property
    def cut(self) -> str | None:
        """Why the training was ended before its time, as a sentence; ``None``: it was not."""
        return self._file.read_text(encoding="utf-8") if self._file.is_file() else None

    def take_up(self, cut: str | None) -> None:
        """Go on with what an interrupted run had found."""
        if cut is not None:
            self._file.write_text(cut, encoding="utf-8")

    @contextmanager
    def beside(self) -> Iterator[None]:
        """For a block inside a batch, do what no final training does."""
        began = self.limit.spent
        try:
            yield
        finally:
            self._beside += self.limit.spent - began

    def nearest(self, batches: float) -> float | None:
        """Return the seconds that are left for this training; ``None`` where so many batches may end before that."""
        if self._batches < 2:
            return None
        left = self._left(self._tempo)
        return max(left, 0.0) if batches * self._fastest > left else None

    @property
    def _tempo(self) -> Tempo:
        step = self._seconds / (self._batches - 1) if self._batches > 1 else self._first
        return Tempo(step, self._validation, self._of_epoch)

    # What Lightning calls

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._beside = self.limit.spent, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._of_epoch = float(trainer.num_training_batches)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        took, self._since = self.limit.spent - self._since, self.limit.spent
        self._batches += 1
        if self._batches == 1:
            self._first = took - self._beside
        else:
            self._seconds += took - self._beside
        self._fastest = min(self._fastest, took)
        self._beside = 0.0
        if self._is_time(took) and not trainer.should_stop and trainer.fit_loop._can_stop_early:
            self._end(trainer, batch_idx + 1)

    def _is_time(self, took: float) -> bool:
        left = self._left(self._tempo)
        late = self.limit.left <= self.limit.to_write
        return distributed.of_first(late or (self._batches > 1 and left < took))

    def _end(self, trainer: Trainer, batch: int) -> None:
        epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
        if batch == batches and trainer.current_epoch + 1 == epochs:
            return  # it is over by itself
        trainer.should_stop = True
        of_epochs = f" of {epochs}" if epochs > 0 else ""
        of_batches = f" of {batches}" if math.isfinite(batches) else ""
        words = (
            f"The {self.phase} was ended after batch {batch}{of_batches} of epoch {trainer.current_epoch + 1}"
            f"{of_epochs}: {max(self.limit.left, 0.0):.0f} s were left for {self.before}, of the "
            f"{self.limit.seconds:.0f} s that this run may take."
        )
        self._file.write_text(words, encoding="utf-8")
        if trainer.is_global_zero:
            print(f"CUT: {words}", flush=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = self.limit.spent

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = self.limit.spent
        if not trainer.sanity_checking:
            self._validation = max(self._validation, self._since - self._validating)
