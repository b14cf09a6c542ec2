"""What a diagnosis says, as data: the findings, the words that they share, and the diagnosis with its readings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from .readings import CandidateReading, ChoiceReading, ContextReading, NormReading, SiteReading

__all__ = ["Diagnosis", "Finding", "Severity", "by_progress", "places", "span"]

Severity = Literal["fault", "warning", "note"]


class Finding(NamedTuple):
    """One thing that is wrong, or may be.

    Parameters
    ----------
    code
        Its short name, for programs and for ``ignore``.
    severity
        ``fault``: it will spoil the search. ``warning``: look at it. ``note``: it could not be judged.
    where
        Site, candidate, label or module.
    found, expected
        The two values.
    remedy
        The way out.
    """

    code: str
    severity: Severity
    where: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        head = f"{self.severity} {self.code} at `{self.where}`"
        return f"{head}: {self.found}; expected {self.expected}.\n  {self.remedy}"


class Diagnosis(NamedTuple):
    """What was measured, and what is wrong. ``print(diagnosis)`` is a report.

    Parameters
    ----------
    progress
        How far the search was said to be, from 0 to 1; ``None``: unknown.
    runs
        Pairs of an architecture and a batch that were run.
    loss
        Mean over them.
    sites, context, candidates, choices, norms
        Readings, one for each place; ``context`` is ``None`` where the controller looks at none.
    findings
        What is wrong, or may be: faults first, then warnings, then notes.
    """

    progress: float | None
    runs: int
    loss: float
    sites: tuple[SiteReading, ...]
    context: ContextReading | None
    candidates: tuple[CandidateReading, ...]
    choices: tuple[ChoiceReading, ...]
    norms: tuple[NormReading, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that will spoil the search."""
        return tuple(one for one in self.findings if one.severity == "fault")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings to look at."""
        return tuple(one for one in self.findings if one.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        plain: dict[str, Any] = {"progress": self.progress, "runs": self.runs, "loss": self.loss}
        plain |= {"context": self.context and self.context._asdict()}
        for name in ("sites", "candidates", "choices", "norms", "findings"):
            plain[name] = [one._asdict() for one in getattr(self, name)]
        return plain

    def to_json(self) -> str:
        """JSON; what is infinite or no number is ``null``."""
        return json.dumps(_finite(self.to_dict()), indent=2)

    def __str__(self) -> str:
        from .printing import report

        return report(self)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Words of the findings


def by_progress(progress: float | None, until: float, before: Severity, after: Severity) -> Severity:
    """A severity that depends on how far the search is; a warning where that is not known and it matters."""
    if progress is None:
        return before if before == after else "warning"
    return before if progress < until else after


def places(names: Sequence[str], of: int, everything: str) -> str:
    """Name the first few, or all of them by one word."""
    if len(names) == of and of > 1:
        return everything
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def span(values: Iterable[float]) -> str:
    """Write the least and the most of some values.

    >>> span([2.0, 1.0, 3.0]), span([1.0, 1.0])
    ('1 to 3', '1')
    """
    low, high = min(values := list(values)), max(values)
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
