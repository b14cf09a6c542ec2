"""A diagnosis as text."""

from __future__ import annotations

from collections.abc import Sequence

from .findings import Diagnosis
from .readings import ContextReading

__all__ = ["headline", "report"]

SITES = ("site", "runs", "made", "scale", "gain", "twin's", "varies", "gradient")
CANDIDATES = ("candidate", "runs", "probability", "output", "deviates", "gradient")
CHOICES = ("choice", "entropy", "winner", "probability")
NORMS = ("batch normalisation", "mode", "updates", "shift", "variance")


def headline(d: Diagnosis) -> str:
    """One line: how much was measured, and how many findings there are."""
    notes = len(d.findings) - len(d.faults) - len(d.warnings)
    counts = [(len(d.faults), "fault"), (len(d.warnings), "warning"), (notes, "note")]
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    at = "" if d.progress is None else f", at {d.progress:.0%} of the search"
    return f"{d.runs} runs{at}, loss {d.loss:.4g}: {words}"


def report(d: Diagnosis) -> str:
    """Return the tables of what was measured, and the findings after them."""
    sites = [
        (s.site, str(s.runs), *map(_number, (s.made, s.weight_scale, s.gain, s.twin_gain, s.variation, s.gradient)))
        for s in d.sites
    ]
    candidates = [
        (c.name, str(c.runs), *map(_number, (c.probability, c.output, c.deviation, c.gradient))) for c in d.candidates
    ]
    choices = [(c.label, _number(c.entropy), c.winner, _number(c.probability)) for c in d.choices]
    norms = [
        (n.name, _mode(n.training), _count(n.updates), _number(n.mean_shift), _number(n.variance_ratio))
        for n in d.norms
    ]
    parts = [headline(d), _table(SITES, sites), _context(d.context), _table(CANDIDATES, candidates)]
    parts += [_table(CHOICES, choices), _table(NORMS, norms), "\n".join(map(str, d.findings))]
    return "\n\n".join(part for part in parts if part)


def _context(c: ContextReading | None) -> str:
    if c is None:
        return ""
    gap = "" if c.gap is None else f"; shuffled, the loss changes by {c.gap:+.2%}{_error(c)}"
    return (
        f"context: varies by {_number(c.spread)}, its code by {_number(c.code_spread)}, the weights by "
        f"{_number(c.variation)}; gradient {_number(c.gradient)}, into the code {_number(c.code_gradient)}{gap}"
    )


def _error(c: ContextReading) -> str:
    return "" if c.gap_error is None else f" (error {c.gap_error:.2%})"


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
