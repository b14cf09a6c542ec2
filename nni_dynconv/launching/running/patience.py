"""How long NNI is waited for: as long as what is waited for computes, and no longer than the user has given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import psutil

from ...errors import LaunchError
from ..trying import OUT_OF_TIME

__all__ = ["NotStartedError", "Patience", "UnfinishedError", "lives"]

STILL = 60.0
"""Seconds in which a process computes nothing, and is waited for no longer; a busy machine gives each a share."""
LONGEST = 600.0


class NotStartedError(LaunchError):
    """NNI did not start, which may go better another time."""


class UnfinishedError(LaunchError):
    """An experiment has ended before its time, and can go on."""


class Patience:
    """Waits for a process as long as it makes progress.

    Parameters
    ----------
    process
        Returns what is waited for; ``None`` where it is not there yet.
    deadline
        Of :func:`time.monotonic`.
    """

    def __init__(self, process: Callable[[], psutil.Process | None], deadline: float = math.inf):
        self._process, self._deadline = process, deadline
        self._began = self._since = time.monotonic()
        self._spent = -1.0

    def check(self, what: str) -> None:
        """Give up, where it is time to.

        Parameters
        ----------
        what
            What has not happened, as a sentence without its full stop.

        Raises
        ------
        UnfinishedError
            The user's time is over.
        NotStartedError
            It computes no more, or has for too long.
        """
        now, spent = time.monotonic(), computed(self._process())
        if now > self._deadline:
            raise UnfinishedError(OUT_OF_TIME)
        if spent != self._spent:
            self._spent, self._since = spent, now
        if now - self._since > STILL:
            raise NotStartedError(f"{what}, and nothing was computed for {STILL:.0f} s.")
        if now - self._began > LONGEST:
            raise NotStartedError(f"{what} in {LONGEST:.0f} s.")


def computed(process: psutil.Process | None) -> float:
    """Return the seconds for which a process has computed."""
    try:
        return 0.0 if process is None else sum(process.cpu_times()[:2])
    except psutil.Error:
        return 0.0


def lives(process: psutil.Process) -> bool:
    """Whether a process runs, and is not merely waiting to be noticed dead."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
