"""What a diagnosis finds, as data, and the words that findings share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

__all__ = ["Finding", "Severity", "by_progress", "places", "span"]

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
