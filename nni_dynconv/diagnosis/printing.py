"""Readings as tables of text."""

from __future__ import annotations

from collections.abc import Sequence

from .readings import CandidateReading, ChoiceReading, ContextReading, NormReading, SiteReading

__all__ = ["candidates", "choices", "context", "norms", "sites"]

SITES = ("site", "runs", "made", "scale", "gain", "twin's", "varies", "gradient")
CANDIDATES = ("candidate", "runs", "probability", "output", "deviates", "gradient")
CHOICES = ("choice", "entropy", "winner", "probability", "gradient")
NORMS = ("batch normalisation", "mode", "updates", "shift", "variance")


def sites(readings: Sequence[SiteReading]) -> str:
    """Return a row for each site."""
    rows = [
        (s.site, str(s.runs), *map(_number, (s.made, s.weight_scale, s.gain, s.twin_gain, s.variation, s.gradient)))
        for s in readings
    ]
    return _table(SITES, rows)


def candidates(readings: Sequence[CandidateReading]) -> str:
    """Return a row for each candidate."""
    rows = [(c.name, str(c.runs), *map(_number, (c.probability, c.output, c.deviation, c.gradient))) for c in readings]
    return _table(CANDIDATES, rows)


def choices(readings: Sequence[ChoiceReading]) -> str:
    """Return a row for each choice."""
    rows = [(c.label, _number(c.entropy), c.winner, _number(c.probability), _number(c.gradient)) for c in readings]
    return _table(CHOICES, rows)


def norms(readings: Sequence[NormReading]) -> str:
    """Return a row for each batch normalisation."""
    rows = [
        (n.name, _mode(n.training), _count(n.updates), _number(n.mean_shift), _number(n.variance_ratio))
        for n in readings
    ]
    return _table(NORMS, rows)


def context(c: ContextReading | None) -> str:
    """Return what was read of the context, in a line; nothing where there is none."""
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
