"""Trials that were killed: a resume runs them again, also where NNI counts them as failed; what crashed stays failed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..runs import Run

__all__ = ["run_killed_again"]

KILLED = {128 + number for number in (1, 2, 9, 15)}
"""Exit statuses of a shell whose command ended by SIGHUP, SIGINT, SIGKILL or SIGTERM."""
ENDED = ("FAILED", "USER_CANCELED", "SYS_CANCELED")
OPEN = ("WAITING", "RUNNING", "UNKNOWN")
ERROR_FILE = "error.txt"


class _Trial(NamedTuple):
    id: str
    number: int | None
    folder: Path
    events: list[str]


def run_killed_again(experiment: Path, one_shot: bool, say: Callable[[str], None]) -> None:
    """Note in NNI's records that trials wait which were killed, so that NNI runs them again, and say from where.

    Parameters
    ----------
    experiment
        Folder of an experiment that is stopped.
    one_shot
        Whether trials are searches, which have work left after their result; others are done with it.
    say
        Is told of each trial that goes on.
    """
    database = experiment / "db" / "nni.sqlite"
    if not database.is_file():
        return
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT DISTINCT trialJobId FROM MetricData WHERE type = 'FINAL'"
        reported = {one for (one,) in connection.execute(query)}
        for trial in _trials(connection, experiment):
            if trial.events[-1] in OPEN:
                _tell(trial, say)
            elif trial.events[-1] == "ADD_RESUMED" or (
                was_killed(trial.folder, trial.events) and (one_shot or trial.id not in reported)
            ):
                row = (int(1000 * time.time()), trial.id, "WAITING", None, None, trial.number, None, None)
                connection.execute("INSERT INTO TrialJobEvent VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                _tell(trial, say)
        connection.commit()


def was_killed(folder: Path, events: list[str]) -> bool:
    """Return whether a trial of this machine was ended by a signal from outside, and nobody had told NNI to cancel it.

    Parameters
    ----------
    folder
        Of the trial, with the exit status that NNI's shell noted; without one, that shell was killed too.
    events
        What NNI noted of it, in order.
    """
    if events[-1] not in ENDED or "USER_TO_CANCEL" in events or not folder.is_dir() or (folder / ERROR_FILE).is_file():
        return False
    state = folder / ".nni" / "state"
    words = state.read_text(encoding="utf-8").split() if state.is_file() else []
    return not words or (words[0].isdecimal() and int(words[0]) in KILLED)


def _trials(connection: sqlite3.Connection, experiment: Path) -> list[_Trial]:
    found: dict[str, _Trial] = {}
    query = "SELECT trialJobId, event, sequenceId FROM TrialJobEvent WHERE trialJobId != '' ORDER BY rowid"
    for name, event, number in connection.execute(query):
        known = found.get(name, _Trial(name, None, experiment / "trials" / name, []))
        found[name] = known._replace(number=number if known.number is None else known.number)
        known.events.append(event)
    return list(found.values())


def _tell(trial: _Trial, say: Callable[[str], None]) -> None:
    run: Any = Run(trial.folder)
    where = f"goes on {run.where}" if run.where is not None else "runs again from its beginning"
    say(f"  trial {'?' if trial.number is None else trial.number} ({trial.id}) was interrupted, and {where}.")
