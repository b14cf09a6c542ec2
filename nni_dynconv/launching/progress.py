"""The progress of an experiment's trials: what is new since the last look. What became of them is in ``outcome.py``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..experiments import metrics
from ..phases import Line, State, read_state
from .outcome import Outcome, outcome_of, proposed, show

__all__ = ["Progress"]

CANCELED = ", NNI's word also for one that was killed from outside, as a system does that is short of memory"


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
            sample = proposed(job).get("sample")
            what = f"  {json.dumps(sample)}" if sample and status == "RUNNING" else ""
            what = CANCELED if status == "USER_CANCELED" else what
            self.say(f"  trial {job.get('sequenceId', '?')} ({trial})  {status}{what}")

    def failure_before_any_metric(self) -> dict[str, Any] | None:
        failed = [job for job in self.jobs if job["status"] == "FAILED"]
        return failed[0] if failed and not self.measured else None

    def outcome(self) -> Outcome:
        """What became of the trials, as of the last look."""
        return outcome_of(self.jobs, self.optimize_mode)


def _epoch(value: Any, number: int) -> str:
    """Name an intermediate result: by its phase, where the trial tells one."""
    if isinstance(value, Mapping) and "phase" in value:
        return f"{value['phase']} epoch {value.get('epoch', number)}"
    return f"epoch {number}"
