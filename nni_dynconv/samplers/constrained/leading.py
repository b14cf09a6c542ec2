"""The most probable architectures that keep a space's constraints, and whether it is proven that there are none better.

Beginnings of architectures grow label by label, all at once. One is let go where it can no longer keep a constraint, or
where as many others as are wanted go on in the same ways, are no less probable, and have used no more of a limit; or
where the most that it can still reach is less than what is known to be reached. Where there are too many all the same,
those that can reach most are kept, and what the others could have reached decides whether the result is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .growing import Growth, States
from .reading import Total

__all__ = ["Ahead", "Leading", "Ranked", "leading"]

FIRST = 256
"""Beginnings that are followed at first: what these reach, others need not be followed below."""
MULTIPLIERS = 16
ROUNDING = 1e-9

Numbers = np.ndarray


class Ranked(NamedTuple):
    """The most probable architectures that keep the constraints.

    Parameters
    ----------
    samples
        Distinct, the most probable first; fewer than were asked for where there are no more.
    log_probs
        Of each, before constraints.
    proven
        Whether there are none that are more probable. In a space that is too large to tell they are the best found.
    """

    samples: list[dict[str, Any]]
    log_probs: list[float]
    proven: bool


class Leading(NamedTuple):
    """The same by numbers of candidates, ``(K, labels)``, with the most that anything not looked at could reach."""

    numbers: Numbers
    log_probs: np.ndarray
    missed: float


Ahead = Callable[[Numbers, "np.ndarray | None"], np.ndarray]
"""Returns log-probabilities ``(N, n)`` of the next label's candidates: given the numbers ``(N, labels so far)`` chosen,
and which rows of its last call these go on from. Rows are one, for all, where it does not matter what was chosen."""


def leading(growth: Growth, ahead: Callable[[], Ahead], count: int, width: int, independent: bool) -> Leading:
    """Return the most probable architectures.

    Parameters
    ----------
    ahead
        Makes what is asked for log-probabilities, from the first label on.
    count
        How many.
    width
        Beginnings that are followed at most.
    independent
        Whether log-probabilities do not depend on what was chosen.
    """
    found = _Search(growth, ahead(), count, min(FIRST, width), independent).run()
    if found.missed == -np.inf or (len(found.numbers) == count and found.missed <= found.log_probs[-1]):
        return found
    floor = float(found.log_probs[-1]) if len(found.numbers) == count else -np.inf
    return _Search(growth, ahead(), count, width, independent, floor).run()


class _Search:
    """One sweep over the labels."""

    def __init__(self, growth: Growth, ahead: Ahead, count: int, width: int, independent: bool, floor: float = -np.inf):
        self.growth, self.ahead, self.count, self.width = growth, ahead, count, width
        self.floor, self.missed = floor, -np.inf
        # where they depend on it, nothing is known of what is ahead, but that it is no more than certain
        self.tables = self._all_tables() if independent else None
        self.bounds = None if self.tables is None else _Bounds(growth, [one[0] for one in self.tables])
        self.over = _limit(growth.totals)

    def _all_tables(self) -> list[np.ndarray]:
        nothing = np.zeros((1, 0), dtype=int)
        return [self.ahead(np.zeros((1, place), dtype=int), None) for place in range(len(self.growth.sizes))] or [
            nothing
        ]

    def run(self) -> Leading:
        """Return what it reaches."""
        states, numbers, log_probs = self.growth.start(), np.zeros((1, 0), dtype=int), np.zeros(1)
        rows: np.ndarray | None = None
        for place in range(len(self.growth.sizes)):
            table = self.ahead(numbers, rows) if self.tables is None else self.tables[place]
            parent, number, states = self.growth.grow(states, place)
            log_probs = log_probs[parent] + table[parent if len(table) > 1 else 0, number]
            kept = self._kept(place, states, log_probs)
            states, log_probs, rows = states.take(kept), log_probs[kept], parent[kept]
            numbers = np.column_stack([numbers[rows], number[kept]])
            if not len(numbers):
                break
        best = np.argsort(-log_probs, kind="stable")[: self.count]
        return Leading(numbers[best], log_probs[best], self.missed)

    def _kept(self, place: int, states: States, log_probs: np.ndarray) -> np.ndarray:
        reach = log_probs if self.bounds is None else log_probs + self.bounds.ahead(place, states.sums)
        kept = np.flatnonzero(reach >= self.floor - ROUNDING)
        if self.bounds is not None:
            kept = kept[undominated(states.take(kept), log_probs[kept], self.over, self.count)]
        if len(kept) > self.width:
            order = np.argsort(-reach[kept], kind="stable")
            self.missed = max(self.missed, float(reach[kept[order[self.width]]]))
            kept = np.sort(kept[order[: self.width]])  # of equal ones the first candidates go first
        return kept


def _limit(totals: Sequence[Total]) -> int | None:
    """Return the first sum of which less is never worse."""
    return next((column for column, total in enumerate(totals) if total.least == -np.inf), None)


def undominated(states: States, log_probs: np.ndarray, over: int | None, count: int) -> np.ndarray:
    """Return the rows that fewer than ``count`` others make needless, rising.

    Those go on in the same ways: they have the same choices and sums, but for the sum ``over``, of which they have used
    no more, and are no less probable. It is found by peeling off what nothing left dominates, ``count`` times, so some
    that are needless may stay.

    References
    ----------
    Nemhauser and Ullmann, Discrete dynamic programming and capital allocation, Management Science 15, 1969.
    """
    size = len(log_probs)
    others = [column for place, column in sorted(states.chosen.items())]
    others += [states.sums[:, column] for column in range(states.sums.shape[1]) if column != over]
    used = np.zeros(size) if over is None else states.sums[:, over]
    order = np.lexsort((-log_probs, used, *others))
    starts = np.zeros(size, dtype=bool)
    for one in others:
        starts[1:] |= one[order[1:]] != one[order[:-1]]
    group = np.cumsum(starts)
    height = np.unique(log_probs, return_inverse=True)[1].reshape(-1)[order] + group * (size + 1)  # exact, and by group
    left, kept = np.arange(size), []
    for _ in range(count):
        before = np.maximum.accumulate(np.concatenate([[-1], height[left]]))[:-1]
        front = height[left] > np.maximum(before, group[left] * (size + 1) - 1)
        kept.append(left[front])
        left = left[~front]
    return np.sort(order[np.concatenate(kept)])


class _Bounds:
    """The most that the log-probabilities of the labels ahead can come to, within what is left of each limit.

    For each limit by Lagrange multipliers: ``min over m of sum of max over candidates of (log p - m * cost) + m *
    left`` is no less than the most that can be reached, for whatever multipliers.

    Parameters
    ----------
    log_probs
        Of each label's candidates, ``(n,)``.
    """

    def __init__(self, growth: Growth, log_probs: Sequence[np.ndarray]):
        self.totals = growth.totals
        self.free = _ahead([one.max() for one in log_probs])
        self.priced: list[tuple[float, int, np.ndarray, np.ndarray]] = []  # sign, column, multipliers, sums ahead
        for column, total in enumerate(growth.totals):
            for sign in (1, -1) if total.least > -np.inf else (1,):
                costs = _costs(total, growth.sizes, sign)
                multipliers = _multipliers(log_probs, costs)
                pairs = zip(log_probs, costs, strict=True)
                most = [(one - multipliers[:, None] * cost).max(1) for one, cost in pairs]
                self.priced.append((sign, column, multipliers, _ahead(most)))

    def ahead(self, place: int, sums: np.ndarray) -> np.ndarray:
        """Return it for states that have chosen the label at this place last, ``(N,)``."""
        found = np.full(len(sums), self.free[place])
        for sign, column, multipliers, most in self.priced:
            total = self.totals[column]
            left = (total.most if sign > 0 else -total.least) - sign * sums[:, column]
            for multiplier, value in zip(multipliers, most[place], strict=True):
                np.minimum(found, value + multiplier * left, out=found)
        return found


def _ahead(values: Sequence[Any]) -> np.ndarray:
    """Return for each place the sum of what comes after it."""
    stacked = np.array([*values[1:], np.zeros_like(values[0])] if len(values) else [])
    return np.cumsum(stacked[::-1], axis=0)[::-1]


def _costs(total: Total, sizes: Sequence[int], sign: float) -> list[np.ndarray]:
    """Return the least that each candidate adds to a sum where it completes a term, whatever the term's others are."""
    costs = [np.zeros(size) for size in sizes]
    for places, table in total.terms.items():
        if places:
            costs[places[-1]] += (sign * table).min(axis=tuple(range(len(places) - 1)))
    return costs


def _multipliers(log_probs: Sequence[np.ndarray], costs: Sequence[np.ndarray]) -> np.ndarray:
    """Return zero, and what log-probability a unit of cost is worth between two candidates of one label."""
    slopes: list[float] = []
    for one, cost in zip(log_probs, costs, strict=True):
        apart = cost[:, None] - cost
        worth = (one[:, None] - one)[apart > 0] / apart[apart > 0]
        slopes.extend(worth[worth > 0].tolist())
    return np.array([0.0, *np.quantile(slopes, np.linspace(0, 1, MULTIPLIERS))] if slopes else [0.0])
