"""What became of an experiment's trials: each is counted once, and the counts add up."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..experiments import metrics

__all__ = ["Outcome", "outcome_of", "proposed", "show"]

STOPPED = ("EARLY_STOPPED", "USER_CANCELED", "SYS_CANCELED")


@dataclass
class Outcome:
    """What became of the trials.

    Attributes
    ----------
    succeeded
        Those that ended well, with a result.
    empty
        Those that ended well and whose result is none, by what it is instead.
    unfinished
        Those that had not ended.
    twice
        Those, of all, that reported several results; the first that is a number counts.
    left
        Folders of those that failed, or were stopped: NNI says of one that was killed from outside that a user
        cancelled it.
    evaluated
        A row for each, with its architecture as far as it is known.
    """

    best: dict[str, Any] | None = None
    metric: float | None = None
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    unfinished: int = 0
    twice: int = 0
    empty: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    evaluated: list[dict[str, Any]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many ended in which way; of these each trial is one."""
        own = {"succeeded": self.succeeded, "failed": self.failed, "stopped": self.stopped}
        return {**own, "without_result": self.empty.total(), "unfinished": self.unfinished}

    def told(self) -> str:
        """Return the counts as a line that adds up.

        >>> Outcome(succeeded=2, failed=1, empty=Counter({"NaN": 1}), twice=1).told()
        'Trials: 4 = 2 succeeded, 1 failed, 1 without a result (1 NaN); 1 reported more than once.'
        """
        parts = [f"{self.succeeded} succeeded", f"{self.failed} failed"]
        if self.empty:
            kinds = ", ".join(f"{number} {kind}" for kind, number in self.empty.items())
            parts.append(f"{self.empty.total()} without a result ({kinds})")
        parts += [f"{one} {name}" for name, one in (("stopped", self.stopped), ("unfinished", self.unfinished)) if one]
        twice = f"; {self.twice} reported more than once" if self.twice else ""
        return f"Trials: {sum(self.counts.values())} = {', '.join(parts)}{twice}."


def outcome_of(jobs: Sequence[dict[str, Any]], optimize_mode: str) -> Outcome:
    """Return what became of NNI's trial jobs."""
    outcome = Outcome()
    sign = 1.0 if optimize_mode == "maximize" else -1.0
    for job in jobs:
        value, instead = _result(job)
        outcome.evaluated.append(_row(job, value))
        outcome.twice += len(job.get("finalMetricData") or []) > 1
        if job["status"] in ("FAILED", *STOPPED) and value is None and job.get("logPath"):
            outcome.left.append(job["logPath"])
        if job["status"] == "FAILED":
            outcome.failed += 1
        elif job["status"] in STOPPED:
            outcome.stopped += 1
        elif job["status"] != "SUCCEEDED":
            outcome.unfinished += 1
        elif value is None:
            outcome.empty[instead] += 1
        else:
            outcome.succeeded += 1
            if outcome.metric is None or sign * value > sign * outcome.metric:
                outcome.best, outcome.metric = job, value
    return outcome


def proposed(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the tuner proposed to a trial."""
    try:
        return dict(json.loads(job["hyperParameters"][-1])["parameters"])
    except (KeyError, IndexError, TypeError, ValueError):  # it waits for it
        return {}


def _row(job: dict[str, Any], value: float | None) -> dict[str, Any]:
    """Return what a trial evaluated: the architecture that it was given, or the one that its search found."""
    given = proposed(job)
    sample = given.get("sample")
    if sample is None:
        sample = _read(job, "architecture.json").get("architecture")
    row = {"trial": job["trialJobId"], "number": job.get("sequenceId"), "status": job["status"], "result": value}
    more = {key: given[key] for key in ("hyper_parameters",) if given.get(key)}
    facts = _read(job, "run.json")
    told: dict[str, Any] = {key: facts[key] for key in ("state", "epochs", "seconds", "metrics") if key in facts}
    return {**row, "architecture": sample, **more, **told}


def _read(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a trial has written into one of its files; nothing where it has none, or lies on another machine."""
    try:
        return dict(json.loads(Path(job.get("logPath") or ".", name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _result(job: dict[str, Any]) -> tuple[float | None, str]:
    """Return the first result of a trial that is a finite number, or what the last is instead."""
    instead = "nothing"
    for final in job.get("finalMetricData") or []:
        value = metrics.number_in(metrics.unpacked(final["data"]))
        if value is not None and math.isfinite(value):
            return value, ""
        instead = "no number" if value is None else "NaN" if math.isnan(value) else "infinite"
    return None, instead


def show(value: float | None) -> str:
    """Return a result as it is told."""
    return "no number" if value is None else f"{value:.6g}"
