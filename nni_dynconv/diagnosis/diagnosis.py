"""A diagnosis: its readings and findings, as data, as JSON and as text."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic_core import to_json

from . import printing
from .findings import Finding
from .readings import CandidateReading, ChoiceReading, ContextReading, NormReading, SiteReading, WhoseReading

__all__ = ["Diagnosis"]


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
    whose
        Whose weights a sample gets; ``None`` where samples have no contexts of their own.
    started
        Mean loss of the first weights, before anything was trained; ``None``: unknown.
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
    whose: WhoseReading | None = None
    started: float | None = None

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
        plain |= {"started": self.started}
        plain |= {"context": self.context and self.context._asdict()}
        plain |= {"whose": self.whose and self.whose._asdict()}
        for name in ("sites", "candidates", "choices", "norms", "findings"):
            plain[name] = [one._asdict() for one in getattr(self, name)]
        return plain

    def to_json(self) -> str:
        """JSON; what is infinite or no number is ``null``."""
        return to_json(self.to_dict(), indent=2, inf_nan_mode="null").decode()

    @property
    def headline(self) -> str:
        """One line: how much was measured, and how many findings there are."""
        notes = len(self.findings) - len(self.faults) - len(self.warnings)
        counts = [(len(self.faults), "fault"), (len(self.warnings), "warning"), (notes, "note")]
        words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
        at = "" if self.progress is None else f", at {self.progress:.0%} of the search"
        return f"{self.runs} runs{at}, loss {self.loss:.4g}: {words}"

    def __str__(self) -> str:
        tables = [printing.sites(self.sites), printing.context(self.context), printing.candidates(self.candidates)]
        tables += [printing.choices(self.choices), printing.norms(self.norms)]
        parts = [self.headline, *tables, "\n".join(map(str, self.findings))]
        return "\n\n".join(part for part in parts if part)
