"""How far a sampler's learning is, by the steps that it learns in: those of a warm-up are none of them."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer

from ...samplers import distributed

__all__ = ["Clock", "Pace", "pace_of"]

PARTS = 1000
"""That the time of a search counts as, where steps are not known."""


class Pace(NamedTuple):
    """Steps that the sampler has learned in, and how many there will be.

    Examples
    --------
    >>> Pace(0, 4).progress, Pace(3, 4).progress, Pace(0, 1).progress, Pace(0, math.inf).progress
    (0.0, 1.0, 0.0, 0.0)
    >>> Pace(0, 4).rate, Pace(3, 4).rate
    (1.0, 0.25)
    """

    done: float
    total: float

    @property
    def progress(self) -> float:
        """From 0 at its first step to 1 at its last; 0 where nothing tells how many there will be."""
        return min(max(self.done, 0.0) / max(self.total - 1, 1.0), 1.0)

    @property
    def rate(self) -> float:
        """What is left of the learning rate: 1 at its first step, and not yet 0 at its last."""
        return max(1 - max(self.done, 0.0) / max(self.total, 1.0), 0.0)


class Clock:
    """How much of a search's time is gone since the sampler began to learn: the same in all processes.

    Attributes
    ----------
    start
        When it began, by the timer that the time is told by; ``None``: it has not.
    """

    def __init__(self) -> None:
        self.start: float | None = None

    def pace(self, trainer: Trainer, spent: float | None = None, left: float | None = None) -> Pace | None:
        """Return the pace by that time, in thousandths of it.

        Parameters
        ----------
        trainer
            Its ``max_time`` bounds a search.
        spent, left
            Seconds of the run, where its time is limited, and those that the search has left of it; ``None``: it may
            end by itself before.

        Returns
        -------
        ``None`` where no time bounds it.
        """
        timers = [one for one in trainer.callbacks if isinstance(one, Timer) and one.time_remaining() is not None]
        if not timers and spent is None:
            return None
        bounds = [(float(one.time_remaining() or 0.0), one.time_elapsed()) for one in timers]
        if left is not None:
            bounds.append((left, min((now for _, now in bounds), default=spent or 0.0)))
        found = distributed.of_first(min(bounds, default=None))
        if found is None:
            return None
        nearest, now = found
        if self.start is None:
            self.start = now
        gone = now - self.start
        return Pace(PARTS * gone / max(gone + nearest, 1e-9), PARTS)


def pace_of(
    trainer: Trainer, batch: int, warmup_epochs: int, accumulate: int, own_steps: int, timed: Pace | None = None
) -> Pace:
    """Return the pace at a batch of a trainer's epoch, by whichever bound is nearer: epochs, ``max_steps``, or time.

    Parameters
    ----------
    batch
        Its number in the epoch.
    warmup_epochs
        Epochs before the sampler learns.
    accumulate, own_steps
        Batches to a step of the evaluator's optimizer, and steps of the sampler's own to a batch: ``max_steps`` counts
        both.
    timed
        The pace by time, where that is bounded.
    """
    batches, bounds = trainer.num_training_batches, [Pace(0, math.inf) if timed is None else timed]
    if not math.isfinite(batches):  # nor does anything tell how long an epoch of warm-up is
        return bounds[0]
    if (trainer.max_epochs or -1) > 0:
        epochs = trainer.current_epoch - warmup_epochs
        bounds.append(Pace(epochs * batches + batch, (trainer.max_epochs - warmup_epochs) * batches))
    if (trainer.max_steps or -1) > 0:
        before, each = warmup_epochs * math.ceil(batches / accumulate), own_steps + 1 / accumulate
        bounds.append(Pace((trainer.global_step - before) / each, (trainer.max_steps - before) / each))
    return max(bounds, key=lambda one: one.done / max(one.total, 1.0))
