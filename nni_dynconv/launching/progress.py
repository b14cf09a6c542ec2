"""The progress of an experiment's trials: what is new since the last look, and what became of them in the end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..experiments import metrics
from ..phases import Line, State, read_state

__all__ = ["Outcome", "Progress", "show"]

STOPPED = ("EARLY_STOPPED", "USER_CANCELED", "SYS_CANCELED")


@dataclass
class Outcome:
    """What became of the trials.

    Attributes
    ----------
    left
        Folders of those that failed.
    evaluated
        A row for each, with its architecture as far as it is known.
    """

    best: dict[str, Any] | None = None
    metric: float | None = None
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    left: list[str] = field(default_factory=list)
    evaluated: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Progress:
    """Tells what is new since the last look, keeps count, and lets a line show where each trial is."""

    optimize_mode: str
    say: Callable[[str], None]
    line: Line | None = None
    jobs: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    _waiting: State = field(default_factory=lambda: State("waiting for a trial"))

    def update(self, jobs: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> None:
        self.jobs = sorted(jobs, key=lambda job: job.get("startTime") or math.inf)
        numbers = {job["trialJobId"]: job.get("sequenceId", "?") for job in jobs}
        for metric in sorted(metrics, key=lambda metric: metric["timestamp"]):
            self._tell_metric(metric, numbers.get(metric["trialJobId"], "?"))
        for job in self.jobs:
            self._tell_status(job)
            self._show(job)
        if self.line is not None and any(job["status"] == "RUNNING" for job in self.jobs):
            self.line.forget()
            self._waiting = State("waiting for a trial")
        elif self.line is not None:
            self.line.show(self._waiting)

    def _show(self, job: dict[str, Any]) -> None:
        """Show where a trial is: what it tells itself, on this machine, or that it runs."""
        who = f"trial {job.get('sequenceId', '?')}"
        if self.line is None:
            return
        if job["status"] != "RUNNING":
            self.line.forget(who)
            return
        began = (job.get("startTime") or 0) / 1000
        self.line.show(read_state(Path(job.get("logPath") or ".")) or State("running", began=began), who)

    def _tell_metric(self, metric: dict[str, Any], number: Any) -> None:
        trial = metric["trialJobId"]
        self.measured.add(trial)
        key, news = f"{trial} {metric['type']}", metric["sequence"]
        if self.seen.get(key) != news:
            self.seen[key] = news
            value = metrics.unpacked(metric["data"])
            what = "result" if metric["type"] == "FINAL" else _epoch(value, news + 1)
            self.say(f"  trial {number} ({trial})  {what}: {show(metrics.number_in(value))}")

    def _tell_status(self, job: dict[str, Any]) -> None:
        trial, status = job["trialJobId"], job["status"]
        if self.seen.get(trial) != status:
            self.seen[trial] = status
            sample = _proposed(job).get("sample")
            what = f"  {json.dumps(sample)}" if sample and status == "RUNNING" else ""
            self.say(f"  trial {job.get('sequenceId', '?')} ({trial})  {status}{what}")

    def failure_before_any_metric(self) -> dict[str, Any] | None:
        failed = [job for job in self.jobs if job["status"] == "FAILED"]
        return failed[0] if failed and not self.measured else None

    def outcome(self) -> Outcome:
        outcome = Outcome()
        sign = 1.0 if self.optimize_mode == "maximize" else -1.0
        for job in self.jobs:
            value = _final_value(job)
            outcome.failed += job["status"] == "FAILED"
            outcome.stopped += job["status"] in STOPPED
            if job["status"] == "FAILED" and job.get("logPath"):
                outcome.left.append(job["logPath"])
            outcome.evaluated.append(_row(job, value))
            if job["status"] != "SUCCEEDED" or value is None:
                continue
            outcome.succeeded += 1
            if outcome.metric is None or sign * value > sign * outcome.metric:
                outcome.best, outcome.metric = job, value
        return outcome


def _epoch(value: Any, number: int) -> str:
    """Name an intermediate result: by its phase, where the trial tells one."""
    if isinstance(value, Mapping) and "phase" in value:
        return f"{value['phase']} epoch {value.get('epoch', number)}"
    return f"epoch {number}"


def _proposed(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the tuner proposed to a trial."""
    try:
        return dict(json.loads(job["hyperParameters"][-1])["parameters"])
    except (KeyError, IndexError, TypeError, ValueError):  # it waits for it
        return {}


def _row(job: dict[str, Any], value: float | None) -> dict[str, Any]:
    """Return what a trial evaluated: the architecture that it was given, or the one that its search found."""
    proposed = _proposed(job)
    sample = proposed.get("sample")
    if sample is None:
        sample = _read(job, "architecture.json").get("architecture")
    row = {"trial": job["trialJobId"], "number": job.get("sequenceId"), "status": job["status"], "result": value}
    more = {key: proposed[key] for key in ("hyper_parameters",) if proposed.get(key)}
    facts = _read(job, "run.json")
    told: dict[str, Any] = {key: facts[key] for key in ("state", "epochs", "seconds", "metrics") if key in facts}
    return {**row, "architecture": sample, **more, **told}


def _read(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a trial has written into one of its files; nothing where it has none, or lies on another machine."""
    try:
        return dict(json.loads(Path(job.get("logPath") or ".", name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _final_value(job: dict[str, Any]) -> float | None:
    finals = job.get("finalMetricData") or []
    value = metrics.number_in(metrics.unpacked(finals[-1]["data"])) if finals else None
    return value if value is not None and math.isfinite(value) else None


def show(value: float | None) -> str:
    """Return a result as it is told."""
    return "no number" if value is None else f"{value:.6g}"
