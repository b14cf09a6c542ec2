"""The architectures that the end of a search starts with: the sampler's that fit a budget, and others that do."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import RankError
from ..costing import Costs
from ..ranking.contest import Sample, distinct
from .evolution import Breeding

__all__ = ["fitting"]

TRIES = 10  # draws for each architecture that is wanted
DESCENTS = 8


def fitting(drawn: Sequence[Sample], wanted: int, costs: Costs, breeding: Breeding, more: bool) -> list[Sample]:
    """Return distinct architectures within the budget.

    Those that were drawn come first. Where none of them fits, or ``more`` are wanted, others are drawn with every
    candidate equally probable; where none of those fits either, single choices of some are changed to cheaper ones.

    Parameters
    ----------
    drawn
        By the sampler.
    wanted
        How many.
    more
        Whether to draw others for those that do not fit.

    Raises
    ------
    RankError
        None was found.
    """
    found = [one for one in distinct(drawn) if costs.fits(one)][:wanted]
    if not found or more:
        others = (breeding.anyone() for _ in range(TRIES * (wanted - len(found))))
        for one in others:
            if len(found) == wanted:
                break
            if one not in found and breeding.allowed(one):
                found.append(one)
    return found or _cheapened(drawn, wanted, costs, breeding)


def _cheapened(drawn: Sequence[Sample], wanted: int, costs: Costs, breeding: Breeding) -> list[Sample]:
    starts = [breeding.anyone() for _ in range(TRIES * DESCENTS)]
    starts = [*drawn[:1], *(one for one in starts if breeding.choices.broken(one) is None)][: min(wanted, DESCENTS)]
    ends = distinct(_descended(one, costs, breeding) for one in starts)
    found = [one for one in ends if costs.fits(one)]
    if not found:
        least = min(ends, key=costs.excess)
        raise RankError(
            f"No architecture was found that keeps the budget {costs.budget}: the nearest costs {costs.of(least)}, "
            f"{least}. Raise `budget`, or give the space cheaper candidates."
        )
    return found


def _descended(sample: Sample, costs: Costs, breeding: Breeding) -> Sample:
    """Change single choices as long as that brings an architecture nearer to the budget."""
    before = None
    while sample != before and costs.excess(sample):
        before = sample
        for label, choice in breeding.choices.items():
            changed = ({**sample, label: value} for value in choice.candidates)
            allowed = [one for one in changed if breeding.choices.broken(one) is None]
            sample = min(allowed, key=costs.excess)
    return sample
