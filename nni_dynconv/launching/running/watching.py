"""Watching an experiment until it is over: what is new, what failed, and which of its processes is gone."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from textwrap import indent
from typing import Any

from ...errors import LaunchError
from .. import remote
from ..causes import cause_in
from ..destination import Destination
from ..experiment import LocalExperiment
from ..nni_logs import said_in, tail
from ..progress import Progress
from ..trying import OUT_OF_TIME
from .patience import NotStartedError, Patience, UnfinishedError

__all__ = ["trial_failure", "wait_for_tuner", "watch"]

FULL = 2**20
"""Bytes that are left on a disk on which nothing goes any more."""


def wait_for_tuner(experiment: LocalExperiment, deadline: float = math.inf) -> None:
    """Wait until the tuner has connected, as long as it computes.

    Raises
    ------
    LaunchError
        It ended with an error.
    NotStartedError
        It, or NNI's manager, is gone.
    """
    patience = Patience(experiment.tuner, deadline)
    while True:
        _raise_tuner_error(experiment)
        try:
            status = experiment.get("check-status")
            if experiment.tuner_connected():
                return
        except LaunchError:
            status = {"status": "", "errors": []}
        if status["status"] == "ERROR":
            raise NotStartedError("; ".join(status["errors"]))
        if not experiment.manager_lives():
            raise NotStartedError(f"NNI's manager ended.{_last_words(experiment)}")
        patience.check(f"The tuner did not connect to NNI, whose logs lie in {experiment.folder}/log")
        time.sleep(0.2)


def watch(experiment: LocalExperiment, progress: Progress, destination: Destination, deadline: float) -> None:
    """Watch an experiment to its end.

    Parameters
    ----------
    progress
        Keeps count.
    destination
        Is told as soon as there is a result.
    deadline
        Of :func:`time.monotonic`.

    Raises
    ------
    LaunchError
        The tuner failed, or the first trial before any metric.
    UnfinishedError
        The time is over, or the tuner or NNI's manager is gone.
    """
    while True:
        status, jobs, metrics = _ask(experiment, deadline)
        progress.update(jobs, metrics)
        if progress.measured:
            destination.mark(experiment.id)
        _raise_tuner_error(experiment)
        if status["status"] == "ERROR":
            said = "; ".join(status["errors"])
            raise LaunchError(f"NNI ended the experiment: {said}{_last_words(experiment)}")
        failure = progress.failure_before_any_metric()
        if failure is not None:
            raise LaunchError(trial_failure(failure, experiment))
        if _is_over(status["status"], jobs):
            return
        if not experiment.tuner_lives():
            _raise_tuner_error(experiment)
            raise UnfinishedError("The tuner's process was killed.")
        if time.monotonic() > deadline:
            raise UnfinishedError(OUT_OF_TIME)
        time.sleep(0.5)


def _ask(experiment: LocalExperiment, deadline: float) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Ask NNI's manager how things are, again as long as it lives and computes."""
    patience = Patience(experiment.manager, deadline)
    while True:
        try:
            status = experiment.get("check-status")
            return status, experiment.get("trial-jobs"), experiment.get("metric-data-latest")
        except LaunchError as error:
            if not experiment.manager_lives():
                raise UnfinishedError(f"NNI's manager was killed, or ended.{_last_words(experiment)}") from None
            _raise_tuner_error(experiment)
            _be_patient(patience, str(error).rstrip("."))
            time.sleep(1.0)


def _be_patient(patience: Patience, what: str) -> None:
    try:
        patience.check(what)
    except NotStartedError as error:
        raise UnfinishedError(str(error)) from None


def _last_words(experiment: LocalExperiment) -> str:
    """Return what NNI's manager wrote last to its standard error, and, where that is so, that its disk is full."""
    said = [one for one in experiment.log("nnictl_stderr.log").splitlines() if set(one) - {"-"}]
    said = [one for one in said if not one.startswith(f"Experiment {experiment.id} start:")]
    told = f"\n{tail(chr(10).join(said))}" if said else ""
    return told + _full_disk(experiment)


def _full_disk(experiment: LocalExperiment) -> str:
    if experiment.folder is None or shutil.disk_usage(experiment.folder).free > FULL:
        return ""
    return f"\nThe disk of {experiment.folder} is full. Make room, then resume the experiment."


def _raise_tuner_error(experiment: LocalExperiment) -> None:
    error = experiment.tuner_error()
    if error is not None:
        raise LaunchError(f"The tuner ended with an error:\n  {error}{_full_disk(experiment)}")


def _is_over(status: str, jobs: list[dict[str, Any]]) -> bool:
    if status == "TUNER_NO_MORE_TRIAL":
        return all(job["status"] not in ("WAITING", "RUNNING", "UNKNOWN") for job in jobs)
    return status in ("DONE", "STOPPED")


def trial_failure(job: dict[str, Any], experiment: LocalExperiment) -> str:
    """Return what a trial said that failed."""
    folder = job.get("logPath") or ""
    there = remote.is_remote(folder)
    said = experiment.trial_file(job["trialJobId"], "stderr") if there else said_in(Path(folder))
    what = indent(cause_in(said).strip() or "(it wrote nothing to its standard error)", "  ")
    return (
        f"The first trial ({job['trialJobId']}) failed before it reported any metric, so the experiment was stopped. "
        f"It said:\n{what}\n  All of it: {folder}"
    )
