"""What NNI 3.0 leaves out of a resume: parameter ids that go on, and results that no tuner was there to learn."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from .metrics import unpacked

__all__ = ["continue_parameter_ids", "reported_results"]


def continue_parameter_ids(first: int) -> None:
    """Let NNI's dispatcher in this process number what it asks for from ``first`` on, or higher, and never go back.

    NNI starts over: at 0 when a trial that it runs again ends before the tuner is ready, else after the highest id
    among those that it runs again. So two trials of one experiment had the same, and a late result of the one was told
    as the other's.
    """
    from nni.runtime import msg_dispatcher

    dispatcher = msg_dispatcher.MsgDispatcher
    msg_dispatcher._next_parameter_id = max(msg_dispatcher._next_parameter_id, first)
    recover = getattr(dispatcher.recover_parameter_id, "__wrapped__", dispatcher.recover_parameter_id)

    @functools.wraps(recover)
    def recover_parameter_id(self: Any, data: Any) -> int:
        return max(recover(self, data), msg_dispatcher._next_parameter_id - 1)

    dispatcher.recover_parameter_id = recover_parameter_id


def reported_results(experiment: Path) -> list[dict[str, Any]]:
    """Return the final results that name their proposal, in the order in which NNI's manager noted them.

    A resumed tuner is told those of trials that ended well. A trial may also have reported and then been killed, or
    run on while its tuner was dead: its result stands in NNI's database alone.

    Parameters
    ----------
    experiment
        The experiment's folder; nothing is found where it has no database.
    """
    database = experiment / "db" / "nni.sqlite"
    if not database.is_file():
        return []
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT data FROM MetricData WHERE type = 'FINAL' ORDER BY timestamp"
        found = [unpacked(data) for (data,) in connection.execute(query)]
    return [value for value in found if isinstance(value, dict) and isinstance(value.get("proposal"), int)]
