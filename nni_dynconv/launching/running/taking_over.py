"""An experiment that still runs, or has left processes, though the launch that watched it is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import LaunchError
from .watched import Watched, end_all

__all__ = ["take_over"]

PATIENCE = 20.0


def take_over(experiment_id: str, say: Callable[[str], None]) -> None:
    """End what still runs of an experiment that nobody watches any more, so that NNI can resume it.

    Its manager goes first, in whose records the trials then still run, so that NNI runs them again.

    Raises
    ------
    LaunchError
        Another launch watches it, or it was not started by one, and runs.
    """
    from nni.tools.nnictl.config_utils import Experiments
    from nni.tools.nnictl.nnictl_utils import update_experiment

    update_experiment()
    known = Experiments().get_all_experiments()[experiment_id]
    watched = Watched(Path(known["logDir"], experiment_id))
    if watched.is_watched():
        raise LaunchError(f"Experiment `{experiment_id}` is watched by another launch, which has to end before.")
    runs = known["status"] != "STOPPED"
    if runs and not watched.was_launched():
        raise LaunchError(f"Experiment `{experiment_id}` still runs in NNI. `nnictl stop {experiment_id}` stops it.")
    left = watched.left()
    if not left:
        return
    say("The launch that watched the experiment is gone; what it left running is stopped.")
    for process in left:
        if process.pid == known.get("pid"):
            process.kill()
    end_all(watched.left, PATIENCE)
    update_experiment()
