"""The time that a trial has: of NNI's settings, told in its proposal; of ``launch --timeout``, told to all processes.

The tuner's way; no torch.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["UNTIL", "TimeGiven", "until"]

UNTIL = "NNI_DYNCONV_UNTIL"
"""Environment variable: when `launch` will end all, in seconds since the epoch."""


def until() -> float:
    """Return when this process will be ended by ``launch``, in seconds since the epoch; infinite: it will not."""
    return float(os.environ.get(UNTIL, "inf"))


def age() -> float:
    """Return how long this process has been there, in seconds."""
    import psutil

    return time.time() - psutil.Process().create_time()


class TimeGiven:
    """What ``maxExperimentDuration`` and ``maxTrialDuration`` leave for a trial that begins now.

    Parameters
    ----------
    experiment, trial
        The two settings as NNI has them: seconds, or ``30m``; ``None``: there is none.
    spent
        Seconds that the experiment has been running for before.

    Examples
    --------
    >>> TimeGiven(trial="30m").seconds()
    1800.0
    """

    def __init__(self, experiment: Any = None, trial: Any = None, spent: float = 0.0):
        self._experiment, self._trial = experiment, trial
        self._began = time.monotonic() - spent

    @classmethod
    def of(cls, params: Mapping[str, Any], experiment: Path | None) -> TimeGiven:
        """Return what the experiment that NNI has told the tuner of leaves.

        Parameters
        ----------
        params
            The experiment's settings, as NNI tells them.
        experiment
            Its folder; ``None`` where there is none.
        """
        whole = params.get("maxExperimentDuration")
        spent = 0.0 if experiment is None or whole is None else _spent(experiment / "db" / "nni.sqlite")
        return cls(whole, params.get("maxTrialDuration"), spent)

    def seconds(self) -> float | None:
        """Return the seconds that a trial has from now on; ``None``: they are not limited."""
        from nni.experiment.config.utils import parse_time  # not while NNI waits for the tuner to connect

        whole, trial = (math.inf if one is None else parse_time(one) for one in (self._experiment, self._trial))
        seconds = min(max(whole - (time.monotonic() - self._began), 0.0), trial)
        return None if math.isinf(seconds) else round(float(seconds), 1)


def _spent(database: Path) -> float:
    """Return for how long NNI has counted an experiment as running; it goes on counting on a resume."""
    if not database.is_file():
        return 0.0
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT execDuration FROM ExperimentProfile ORDER BY revision DESC LIMIT 1"
        row = connection.execute(query).fetchone()
    return 0.0 if row is None else float(row[0])
