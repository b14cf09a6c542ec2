"""Starting NNI on a machine that may be busy: waiting as long as it gets on, and trying again where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...errors import LaunchError
from ...phases import Line, State
from ..experiment import LocalExperiment
from ..nnictl import LOOPBACK, choose_port
from .patience import NotStartedError
from .watching import wait_for_tuner

__all__ = ["start"]

TRIES = 3


def start(
    experiment: LocalExperiment,
    begin: Callable[[], None],
    line: Line,
    port: int | None = None,
    deadline: float = math.inf,
) -> None:
    """Start an experiment, and wait for its tuner.

    Parameters
    ----------
    begin
        Creates or resumes it.
    port
        What the user wants; any free one is tried otherwise.

    Raises
    ------
    LaunchError
        It did not start in several tries, or will never.
    UnfinishedError
        The time is over.
    """
    for left in reversed(range(TRIES)):
        line.show(State("starting NNI"))
        try:
            begin()
            line.say(f"NNI experiment {experiment.id}: http://{LOOPBACK}:{experiment.port} (logs: {experiment.folder})")
            wait_for_tuner(experiment, deadline)
            return
        except NotStartedError as error:
            experiment.stop()
            if not left:
                raise LaunchError(f"NNI did not start, tried {TRIES} times. The last time:\n{error}") from None
            experiment.port = choose_port(port)
            line.say(f"NNI did not start; trying again, on port {experiment.port}. {_last(str(error))}")


def _last(said: str) -> str:
    return said.strip().splitlines()[-1]
