"""Beginnings of architectures, many at once: they grow by a label, and those that can no longer keep a limit go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .reading import Check, Total

__all__ = ["Growth", "States"]

Places = tuple[int, ...]


class States(NamedTuple):
    """What decides how beginnings can go on.

    Parameters
    ----------
    chosen
        By place of a label that something ahead still asks for: the number chosen, ``(N,)``.
    sums
        Of what the terms so far come to, ``(N, totals)``.
    """

    chosen: dict[int, np.ndarray]
    sums: np.ndarray

    def __len__(self) -> int:
        return len(self.sums)

    def take(self, rows: np.ndarray) -> States:
        """Return some of them."""
        return States({place: one[rows] for place, one in self.chosen.items()}, self.sums[rows])


class Growth:
    """Grows beginnings, label by label.

    Parameters
    ----------
    candidates
        Of each label, in order.
    totals, checks
        What must be kept.
    """

    def __init__(self, candidates: Mapping[str, Sequence[Any]], totals: Sequence[Total], checks: Sequence[Check]):
        self.candidates, self.totals, self.checks = candidates, totals, checks
        self.labels = list(candidates)
        self.sizes = [len(one) for one in candidates.values()]
        groups = [*(places for total in totals for places in total.terms), *(check.places for check in checks)]
        self._asked = [  # which of the labels so far are still asked for
            sorted({one for group in groups if group and group[-1] > place for one in group if one <= place})
            for place in range(len(self.sizes))
        ]
        self._reaches = [[_reach(total, place) for total in totals] for place in range(len(self.sizes))]

    def start(self) -> States:
        """Return the one that has chosen nothing yet."""
        constant = [float(total.terms.get((), 0.0)) for total in self.totals]
        return States({}, np.array([constant]).reshape(1, len(self.totals)))

    def grow(self, states: States, place: int) -> tuple[np.ndarray, np.ndarray, States]:
        """Return which of the given ones each new one goes on from, by which candidate, and what they are.

        Parameters
        ----------
        states
            That have chosen all labels before this place.
        """
        size = self.sizes[place]
        parent = np.repeat(np.arange(len(states)), size)
        chosen = {one: values[parent] for one, values in states.chosen.items()}
        chosen[place] = np.tile(np.arange(size), len(states))
        sums, alive = states.sums[parent], np.ones(len(parent), dtype=bool)
        for column, total in enumerate(self.totals):
            for places, table in total.terms.items():
                if places and places[-1] == place:
                    sums[:, column] += _cells(table, places, chosen)
            alive &= self._within_reach(column, place, chosen, sums)
        for check in self.checks:
            if check.places and check.places[-1] == place:
                alive[alive] = self._held(check, {one: values[alive] for one, values in chosen.items()})
        rows, number = np.flatnonzero(alive), chosen[place]
        kept = States({one: chosen[one] for one in self._asked[place]}, sums).take(rows)
        return parent[rows], number[rows], kept

    def _within_reach(self, column: int, place: int, chosen: Mapping[int, np.ndarray], sums: np.ndarray) -> np.ndarray:
        """Whether the terms ahead can bring a sum within its limits; a sum that they cannot bring out is forgotten."""
        total, (terms, furthest) = self.totals[column], self._reaches[place][column]
        low, high = sums[:, column].copy(), sums[:, column].copy()
        for places, least, most in terms:
            low += _cells(least, places, chosen)
            high += _cells(most, places, chosen)
        if total.least == -np.inf:
            sums[:, column] = np.maximum(sums[:, column], total.most - furthest - total.slack)
        return np.asarray((low <= total.most) & (high >= total.least))

    def _held(self, check: Check, chosen: Mapping[int, np.ndarray]) -> np.ndarray:
        if check.table is not None:
            return np.asarray(_cells(check.table, check.places, chosen))
        columns = [chosen[place].tolist() for place in check.places]
        labels = [self.labels[place] for place in check.places]
        samples = (
            {one: self.candidates[one][n] for one, n in zip(labels, row, strict=True)}
            for row in zip(*columns, strict=True)
        )
        return np.fromiter(map(check.holds, samples), dtype=bool)


def _reach(total: Total, place: int) -> tuple[list[tuple[Places, np.ndarray, np.ndarray]], float]:
    """Return how far each term ahead can go, by the labels that it has so far, and how far all can at most."""
    terms, furthest = [], 0.0
    for places, table in total.terms.items():
        if places and places[-1] > place:
            axes = tuple(axis for axis, one in enumerate(places) if one > place)
            known = tuple(one for one in places if one <= place)
            terms.append((known, np.asarray(table.min(axes)), np.asarray(table.max(axes))))
            furthest += float(table.max())
    return terms, furthest


def _cells(table: np.ndarray, places: Sequence[int], chosen: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the cells of a table at the candidates chosen, ``(N,)``; of a table without axes, its one value."""
    return table[tuple(chosen[place] for place in places)]
