"""``nni-dynconv launch``: check, register, start through ``nnictl create``, watch, fetch the best trial, stop all."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import registration
from .config import RunSettings, check_config, code_directory_of, load_yaml
from .errors import LaunchError
from .experiment import LOOPBACK, LocalExperiment, choose_port, error_in_log

__all__ = ["launch", "resume"]

MARKER = "experiment.json"
NNI_FILES = (".nni", "trial.*", "parameter.cfg", "run.sh", "stdout", "stderr", "metrics")
OUT_OF_TIME = "The time given by `--timeout` is over; everything that was started is stopped."
CONNECT_SECONDS = 25.0
"""NNI gives the tuner ten seconds to connect; a little more, for NNI to say so itself."""


@dataclass
class Outcome:
    """What became of the trials."""

    best: dict[str, Any] | None = None
    metric: float | None = None
    succeeded: int = 0
    failed: int = 0


def launch(
    config: str | Path,
    port: int | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
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

    Raises
    ------
    ConfigError
        A setting is wrong; nothing was started.
    LaunchError
        The port is taken, NNI or the tuner did not start, the first trial failed before any metric, no trial
        succeeded, or the time is over. Everything is stopped then.
    """
    began = time.monotonic()
    settings = check_config(config, checkpoint_needed=False)
    _check_interpreter(sys.executable)
    _check_output(output)
    experiment = LocalExperiment(choose_port(port))
    if registration.register():
        say("Registered the tuner `DynamicWeightMutator` with NNI.")
    with _stopping(experiment, say):
        _make_checkpoint(config, settings, experiment, _deadline(began, timeout), say)
        experiment.create(Path(config))
        outcome = _watch(experiment, settings, _deadline(began, timeout), say)
    _deliver(outcome, experiment, output, began, say)
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

    from .config import check_class_args

    began = time.monotonic()
    known = Experiments().get_all_experiments().get(experiment_id)
    if known is None:
        raise LaunchError(f"NNI knows no experiment `{experiment_id}`. `nnictl experiment list --all` lists them.")
    _check_interpreter(sys.executable)
    _check_output(output)
    tuner = Config(experiment_id, known["logDir"]).get_config()["tuner"]
    settings = check_class_args(tuner.get("classArgs") or {})
    experiment = LocalExperiment(choose_port(port))
    with _stopping(experiment, say):
        experiment.resume(experiment_id)
        outcome = _watch(experiment, settings, _deadline(began, timeout), say)
    _deliver(outcome, experiment, output, began, say)
    return outcome


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
            if experiment.id is not None:
                say("Stopping the experiment ...")
            experiment.stop()
        finally:
            if here:
                signal.signal(signal.SIGTERM, old)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


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
    command = [sys.executable, "-m", "nni_dynconv.cli", "warmup", str(config)]
    process = subprocess.Popen(command, env=experiment.environment, start_new_session=True)
    try:
        status = process.wait(None if deadline == math.inf else max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise LaunchError(OUT_OF_TIME) from None
    if status != 0:
        raise LaunchError("The shared checkpoint could not be made; what went wrong stands above.")


# ---------------------------------------------------------------------------------------------------------------------
# Watching


def _watch(experiment: LocalExperiment, settings: RunSettings, deadline: float, say: Callable[[str], None]) -> Outcome:
    say(f"NNI experiment {experiment.id}: http://{LOOPBACK}:{experiment.port} (logs: {experiment.folder})")
    _wait_for_tuner(experiment, deadline)
    say("RUNNING")
    progress = _Progress(settings.optimize_mode, say)
    while True:
        status, jobs, metrics = _ask(experiment)
        progress.update(jobs, metrics)
        _raise_tuner_error(experiment, status)
        failure = progress.failure_before_any_metric()
        if failure is not None:
            raise LaunchError(_trial_failure(failure))
        if _is_over(status, jobs):
            return progress.outcome()
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
        raise LaunchError(f"NNI ended the experiment: {said}\n{_tail(stderr)}")


def _is_over(status: str, jobs: list[dict[str, Any]]) -> bool:
    if status == "TUNER_NO_MORE_TRIAL":
        return all(job["status"] not in ("WAITING", "RUNNING", "UNKNOWN") for job in jobs)
    return status in ("DONE", "STOPPED")


@dataclass
class _Progress:
    """Tells what is new since the last look, and keeps count."""

    optimize_mode: str
    say: Callable[[str], None]
    jobs: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)

    def update(self, jobs: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> None:
        self.jobs = sorted(jobs, key=lambda job: job.get("startTime") or math.inf)
        numbers = {job["trialJobId"]: job.get("sequenceId", "?") for job in jobs}
        for metric in sorted(metrics, key=lambda metric: metric["timestamp"]):
            self._tell_metric(metric, numbers.get(metric["trialJobId"], "?"))
        for job in self.jobs:
            self._tell_status(job)

    def _tell_metric(self, metric: dict[str, Any], number: Any) -> None:
        trial = metric["trialJobId"]
        self.measured.add(trial)
        key, news = f"{trial} {metric['type']}", metric["sequence"]
        if self.seen.get(key) != news:
            self.seen[key] = news
            what = "result" if metric["type"] == "FINAL" else f"epoch {news + 1}"
            self.say(f"  trial {number} ({trial})  {what}: {_show(_value(metric))}")

    def _tell_status(self, job: dict[str, Any]) -> None:
        trial, status = job["trialJobId"], job["status"]
        if self.seen.get(trial) != status:
            self.seen[trial] = status
            self.say(f"  trial {job.get('sequenceId', '?')} ({trial})  {status}")

    def failure_before_any_metric(self) -> dict[str, Any] | None:
        failed = [job for job in self.jobs if job["status"] == "FAILED"]
        return failed[0] if failed and not self.measured else None

    def outcome(self) -> Outcome:
        outcome = Outcome()
        sign = 1.0 if self.optimize_mode == "maximize" else -1.0
        for job in self.jobs:
            value = _final_value(job)
            outcome.failed += job["status"] == "FAILED"
            if job["status"] != "SUCCEEDED" or value is None:
                continue
            outcome.succeeded += 1
            if outcome.metric is None or sign * value > sign * outcome.metric:
                outcome.best, outcome.metric = job, value
        return outcome


def _final_value(job: dict[str, Any]) -> float | None:
    finals = job.get("finalMetricData") or []
    value = _value(finals[-1]) if finals else None
    return value if value is not None and math.isfinite(value) else None


def _value(metric: dict[str, Any]) -> float | None:
    """NNI keeps a metric as JSON inside JSON: a number, or a mapping whose ``default`` is the number."""
    value = json.loads(metric["data"])
    value = json.loads(value) if isinstance(value, str) else value
    value = value.get("default") if isinstance(value, dict) else value
    return float(value) if isinstance(value, (int, float)) else None


def _show(value: float | None) -> str:
    return "no number" if value is None else f"{value:.6g}"


def _trial_failure(job: dict[str, Any]) -> str:
    folder = Path(job.get("logPath") or "")
    stderr = _read(folder / "trial.stderr") or error_in_log(_read(folder / "trial.log")) or _read(folder / "stderr")
    what = _tail(stderr) if stderr.strip() else "  (it wrote nothing to its standard error)"
    return (
        f"The first trial ({job['trialJobId']}) failed before it reported any metric, so the experiment was stopped. "
        f"It said:\n{what}\n  All of it: {folder}"
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])


# ---------------------------------------------------------------------------------------------------------------------
# Results


def _check_output(output: str | Path | None) -> None:
    """Refuse to overwrite a folder that an earlier launch did not write."""
    if output is None:
        return
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise LaunchError(f"`--output` is {folder}, which is a file. Name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise LaunchError(f"`--output` is {folder}, which holds files that no launch wrote. Name another folder.")


def _deliver(
    outcome: Outcome, experiment: LocalExperiment, output: str | Path | None, began: float, say: Callable[[str], None]
) -> None:
    say(f"Trials: {outcome.succeeded} succeeded, {outcome.failed} failed.")
    if outcome.best is None:
        raise LaunchError("No trial brought a result.")
    source = Path(outcome.best["logPath"])
    say(f"Best trial: {outcome.best['trialJobId']}, result {_show(outcome.metric)}")
    if output is None:
        say(f"Its files lie in {source}")
        return
    folder = Path(output)
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*NNI_FILES))
    facts: dict[str, Any] = {"experiment_id": experiment.id, "seconds": round(time.monotonic() - began, 1)}
    _complete_summary(folder / "summary.json", facts)
    trials = {"succeeded": outcome.succeeded, "failed": outcome.failed}
    facts |= {"best_trial": outcome.best["trialJobId"], "result": outcome.metric, "trials": trials}
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    _say_results(folder, say)


def _complete_summary(path: Path, facts: dict[str, Any]) -> None:
    """The trial writes the summary, but the time of the whole run is known here."""
    if path.is_file():
        summary = {**json.loads(path.read_text(encoding="utf-8")), **facts}
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _say_results(folder: Path, say: Callable[[str], None]) -> None:
    report = folder / "report.txt"
    if report.is_file():
        say("\n" + report.read_text(encoding="utf-8").rstrip())
    say(f"\nFiles in {folder}: " + ", ".join(sorted(one.name for one in folder.iterdir())))
    if (folder / "architecture.json").is_file():
        say(f'Use it:\n  import nni_dynconv\n  net = nni_dynconv.load("{folder}")\n  y = net(x, context)')
