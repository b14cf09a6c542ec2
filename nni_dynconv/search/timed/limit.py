"""How long a run may take, from its beginning to its end, over all processes that go on with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer

__all__ = ["Allotted", "TimeLimit", "allotted_by"]

SHARE, LONGEST = 0.1, 120.0
"""What is left for writing: this share of a run's time, and so many seconds at most."""


class Allotted(NamedTuple):
    """What a run was given.

    Parameters
    ----------
    seconds
        From its beginning on, wherever it was interrupted.
    until
        When it has to be over, in seconds since the epoch, whenever it began.

    Examples
    --------
    >>> Allotted(600.0).after(spent=100.0)
    600.0
    """

    seconds: float = math.inf
    until: float = math.inf

    def after(self, spent: float) -> float:
        """Return how many seconds a run has in all that has been going on for some."""
        return min(self.seconds, spent + self.until - time.time())


def allotted_by(trainer: Trainer) -> float:
    """Return the seconds of a trainer's ``max_time``, or of a ``Timer`` among its callbacks; infinite without."""
    bounds = [one._duration for one in trainer.callbacks if isinstance(one, Timer)]
    return min((one for one in bounds if one is not None), default=math.inf)


class TimeLimit:
    """How much of a run's time is gone, and how much of the rest is the search's.

    Parameters
    ----------
    seconds
        Of the whole run.
    clock
        Returns how many of them are gone.

    Examples
    --------
    >>> limit = TimeLimit(100.0, lambda: 10.0)
    >>> limit.left, limit.for_search(5.0, 20.0), limit.for_search(5.0, 1000.0), limit.for_search(1000.0, 1000.0)
    (90.0, 55.0, 35.0, 15.0)
    """

    def __init__(self, seconds: float, clock: Callable[[], float]):
        self.seconds, self._clock = seconds, clock

    @property
    def spent(self) -> float:
        """Seconds that are gone."""
        return self._clock()

    @property
    def left(self) -> float:
        """Seconds that are left; below zero where it is late."""
        return self.seconds - self.spent

    @property
    def to_write(self) -> float:
        """Seconds that are kept for writing and exporting what was found."""
        return min(SHARE * self.seconds, LONGEST)

    def for_search(self, comparing: float, training: float) -> float:
        """Return the seconds that are left for the search.

        Parameters
        ----------
        comparing, training
            What comes after it takes. Of all the time the training is sure of a half, and the search of a quarter.
        """
        after = comparing + min(training + self.to_write, self.seconds / 2)
        return self.left - min(after, 3 * self.seconds / 4)

    def for_training(self, after: float) -> float:
        """Return the seconds that are left for the final training, where what comes after it takes some."""
        return self.left - after - self.to_write
