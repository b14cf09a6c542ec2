"""Trials that were killed: a resume runs them again, also where NNI calls them failed; what crashed stays failed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..runs import CRASH_FILE, ERROR_FILE, Run

__all__ = ["run_killed_again"]

ENDED = ("FAILED", "USER_CANCELED", "SYS_CANCELED")
OPEN = ("WAITING", "RUNNING", "UNKNOWN")


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
        for trial in _trials(connection):
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
    """Return whether a trial of this machine was ended from outside, and nobody had told NNI to cancel it.

    Parameters
    ----------
    folder
        Of the trial.
    events
        What NNI noted of it, in order. It calls one that a signal ended canceled by the user.
    """
    if events[-1] not in ENDED or "USER_TO_CANCEL" in events or not folder.is_dir():
        return False
    said = [folder / name for name in (ERROR_FILE, CRASH_FILE)]
    return not any(one.is_file() and one.stat().st_size for one in said)


def _trials(connection: sqlite3.Connection) -> list[_Trial]:
    found: dict[str, _Trial] = {}
    query = "SELECT trialJobId, event, sequenceId, logPath FROM TrialJobEvent WHERE trialJobId != '' ORDER BY rowid"
    for name, event, number, folder in connection.execute(query):
        known = found.get(name, _Trial(name, None, Path(), []))
        known = known._replace(folder=Path(folder)) if folder else known
        found[name] = known if number is None else known._replace(number=number)
        known.events.append(event)
    return list(found.values())


def _tell(trial: _Trial, say: Callable[[str], None]) -> None:
    run: Any = Run(trial.folder)
    where = f"goes on {run.where}" if run.where is not None else "runs again from its beginning"
    say(f"  trial {'?' if trial.number is None else trial.number} ({trial.id}) was interrupted, and {where}.")
