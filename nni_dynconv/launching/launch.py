"""``nni-dynconv launch`` and ``resume``: check, register, start through ``nnictl``, watch, stop all.

The trials' progress is in ``progress.py``, what a launch leaves in ``results.py``.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

from ..errors import LaunchError
from ..experiments import registration
from ..phases import Line, State
from ..settings import RunSettings, check_config, code_directory_of, load_yaml
from . import remote
from .causes import cause_in
from .destination import Destination
from .experiment import LocalExperiment
from .nni_logs import said_in, tail
from .nnictl import LOOPBACK, choose_port
from .progress import Outcome, Progress
from .results import check_output, deliver
from .trying import OUT_OF_TIME, try_out, why_not

__all__ = ["launch", "resume"]

CONNECT_SECONDS = 25.0
"""NNI gives the tuner ten seconds to connect; a little more, for NNI to say so itself."""


def launch(
    config: str | Path,
    port: int | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
    tried: bool = True,
) -> Outcome:
    """Run the experiment of a YAML to its end and leave no process behind.

    Parameters
    ----------
    config
        The experiment's YAML.
    port
        Port of NNI's web server; ``None`` chooses a free one.
    output
        Folder that receives the files of the best trial.
    timeout
        Seconds after which to give up.
    say
        Receives the lines that tell the progress.
    tried
        Whether the experiment is tried first, on a batch, where that can be done here.

    Raises
    ------
    ConfigError
        A setting is wrong; nothing was started.
    LaunchError
        The experiment was tried, and failed; the port is taken, machines of a ``remote`` training service cannot
        reach NNI's manager, NNI or the tuner did not start, the first trial failed before any metric, no trial
        succeeded, or the time is over; or another run, which is not over, belongs into ``output``. Everything is
        stopped then.
    """
    began = time.monotonic()
    settings = check_config(config, checkpoint_needed=False)
    _check_interpreter(sys.executable)
    check_output(output)
    destination = Destination(output)
    destination.check(say)
    remote.check_reachable(load_yaml(config), config)
    experiment = LocalExperiment(choose_port(port))
    if registration.register():
        say("Registered the tuner `DynamicWeightMutator` with NNI.")
    with _stopping(experiment, say):
        if tried:
            _try(config, experiment, _deadline(began, timeout), say)
        _make_checkpoint(config, settings, experiment, _deadline(began, timeout), say)
        with Line(say) as line:
            line.show(State("starting NNI"))
            experiment.create(Path(config))
            outcome = _watch(experiment, settings, destination, _deadline(began, timeout), line)
    destination.over()
    deliver(outcome, experiment, output, began, say)
    return outcome


def resume(
    experiment_id: str,
    port: int | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Go on with a stopped experiment as :func:`launch` does; the arguments are the same."""
    from nni.tools.nnictl.config_utils import Config, Experiments

    from ..settings import check_class_args

    began = time.monotonic()
    known = Experiments().get_all_experiments().get(experiment_id)
    if known is None:
        raise LaunchError(f"NNI knows no experiment `{experiment_id}`. `nnictl experiment list --all` lists them.")
    _check_interpreter(sys.executable)
    check_output(output)
    destination = Destination(output)
    destination.check(say, experiment_id)
    _check_stopped(experiment_id)
    document = Config(experiment_id, known["logDir"]).get_config()
    remote.check_reachable(document, f"the experiment `{experiment_id}`")
    settings = check_class_args(document["tuner"].get("classArgs") or {})
    experiment = LocalExperiment(choose_port(port))
    with _stopping(experiment, say), Line(say) as line:
        line.show(State("starting NNI"))
        experiment.resume(experiment_id)
        outcome = _watch(experiment, settings, destination, _deadline(began, timeout), line)
    destination.over()
    deliver(outcome, experiment, output, began, say)
    return outcome


def _check_stopped(experiment_id: str) -> None:
    """An experiment whose tuner was killed runs on in NNI's manager, and NNI resumes none that runs."""
    from nni.tools.nnictl.config_utils import Experiments
    from nni.tools.nnictl.nnictl_utils import update_experiment

    update_experiment()
    if Experiments().get_all_experiments()[experiment_id]["status"] != "STOPPED":
        raise LaunchError(f"Experiment `{experiment_id}` still runs in NNI. `nnictl stop {experiment_id}` stops it.")


def _check_interpreter(path: str) -> None:
    """NNI starts the tuner through a shell, with this Python's path unquoted."""
    if any(character.isspace() for character in path):
        raise LaunchError(
            f"This Python lies at `{path}`, and NNI 3.0 cannot start a tuner from a path with a space. Move the "
            f"virtual environment to a path without one."
        )


def _deadline(began: float, timeout: float | None) -> float:
    return math.inf if timeout is None else began + timeout


@contextmanager
def _stopping(experiment: LocalExperiment, say: Callable[[str], None]) -> Iterator[None]:
    """Stop the experiment whatever happens; SIGTERM ends like Ctrl-C."""
    here = threading.current_thread() is threading.main_thread()
    old = signal.signal(signal.SIGTERM, _interrupt) if here else None
    try:
        yield
    finally:
        try:
            with Line(say) as line:
                if experiment.id is not None:
                    line.show(State("stopping the experiment"))
                experiment.stop()
        finally:
            if here:
                signal.signal(signal.SIGTERM, old)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _try(config: str | Path, experiment: LocalExperiment, deadline: float, say: Callable[[str], None]) -> None:
    reason = why_not(config)
    if reason is not None:
        say(f"The experiment is not tried: {reason}")
        return
    try_out(config, say, deadline, experiment.environment)


def _make_checkpoint(
    config: str | Path,
    settings: RunSettings,
    experiment: LocalExperiment,
    deadline: float,
    say: Callable[[str], None],
) -> None:
    """Train the shared checkpoint of multi-trial mode if it is not there, in a process of its own."""
    if settings.checkpoint is None:
        return
    path = code_directory_of(load_yaml(config), config) / settings.checkpoint
    if path.exists():
        return
    say(f"Making the shared checkpoint {settings.checkpoint} ...")
    command = [sys.executable, "-m", "nni_dynconv.commands", "warmup", str(config)]
    process = subprocess.Popen(command, env=experiment.environment, start_new_session=True)
    try:
        status = process.wait(None if deadline == math.inf else max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise LaunchError(OUT_OF_TIME) from None
    if status != 0:
        raise LaunchError("The shared checkpoint could not be made; what went wrong stands above.")


# ---------------------------------------------------------------------------------------------------------------------
# Watching


def _watch(
    experiment: LocalExperiment, settings: RunSettings, destination: Destination, deadline: float, line: Line
) -> Outcome:
    line.say(f"NNI experiment {experiment.id}: http://{LOOPBACK}:{experiment.port} (logs: {experiment.folder})")
    _wait_for_tuner(experiment, deadline)
    line.say("RUNNING")
    progress = Progress(settings.optimize_mode, line.say, line)
    while True:
        status, jobs, metrics = _ask(experiment)
        progress.update(jobs, metrics)
        if progress.measured:
            destination.mark(experiment.id)
        _raise_tuner_error(experiment, status)
        failure = progress.failure_before_any_metric()
        if failure is not None:
            raise LaunchError(_trial_failure(failure, experiment))
        if _is_over(status, jobs):
            return progress.outcome()
        if not experiment.tuner_lives():
            _raise_tuner_error(experiment, "")
            raise LaunchError(f"The tuner's process was killed. `nni-dynconv resume {experiment.id}` goes on.")
        if time.monotonic() > deadline:
            raise LaunchError(OUT_OF_TIME)
        time.sleep(0.5)


def _ask(experiment: LocalExperiment, tries: int = 3) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    for left in reversed(range(tries)):
        try:
            status = experiment.get("check-status")["status"]
            return status, experiment.get("trial-jobs"), experiment.get("metric-data-latest")
        except LaunchError:
            _raise_tuner_error(experiment, "")
            if not left:
                raise
            time.sleep(1.0)
    raise AssertionError("unreachable")


def _wait_for_tuner(experiment: LocalExperiment, deadline: float) -> None:
    patience = time.monotonic() + CONNECT_SECONDS
    while True:
        _raise_tuner_error(experiment, experiment.get("check-status")["status"])
        if experiment.tuner_connected():
            return
        if time.monotonic() > deadline:
            raise LaunchError(OUT_OF_TIME)
        if time.monotonic() > patience:
            raise LaunchError(f"The tuner did not connect to NNI; the logs lie in {experiment.folder}/log.")
        time.sleep(0.2)


def _raise_tuner_error(experiment: LocalExperiment, status: str) -> None:
    error = experiment.tuner_error()
    if error is not None:
        raise LaunchError(f"The tuner ended with an error:\n  {error}")
    if status == "ERROR":
        said = "; ".join(experiment.get("check-status")["errors"])
        stderr = experiment.log("nnictl_stderr.log")
        raise LaunchError(f"NNI ended the experiment: {said}\n{tail(stderr)}")


def _is_over(status: str, jobs: list[dict[str, Any]]) -> bool:
    if status == "TUNER_NO_MORE_TRIAL":
        return all(job["status"] not in ("WAITING", "RUNNING", "UNKNOWN") for job in jobs)
    return status in ("DONE", "STOPPED")


def _trial_failure(job: dict[str, Any], experiment: LocalExperiment) -> str:
    folder = job.get("logPath") or ""
    there = remote.is_remote(folder)
    said = experiment.trial_file(job["trialJobId"], "stderr") if there else said_in(Path(folder))
    what = indent(cause_in(said).strip() or "(it wrote nothing to its standard error)", "  ")
    return (
        f"The first trial ({job['trialJobId']}) failed before it reported any metric, so the experiment was stopped. "
        f"It said:\n{what}\n  All of it: {folder}"
    )
