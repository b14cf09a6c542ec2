"""Which candidates can still lead to an architecture that keeps the constraints, and with what probability they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .growing import Growth, States

__all__ = ["Allowed"]

MOST_STATES = 1 << 18


class Allowed:
    """All ways to go on, in a space where these are not too many.

    Parameters
    ----------
    growth
        Of the space.

    Attributes
    ----------
    tables
        One a label, ``(rows, candidates)``: in which row of the next one each candidate leads, or -1. Beginnings that
        go on in the same ways are one row. ``None`` where there are too many.
    """

    def __init__(self, growth: Growth):
        self.tables: list[np.ndarray] | None = None
        states, tables, count = growth.start(), [], 0
        for place, size in enumerate(growth.sizes):
            count += len(states) * size
            if count > MOST_STATES:
                return
            table = np.full((len(states), size), -1)
            parent, number, grown = growth.grow(states, place)
            states, row = _merged(grown)
            table[parent, number] = row
            tables.append(table)
        self.tables = tables

    def masses(self, log_probs: Sequence[np.ndarray] | None) -> list[np.ndarray]:
        """Return the probability that what follows each candidate is allowed, up to a factor for each table.

        Parameters
        ----------
        log_probs
            Of each label's candidates, ``(n,)``. ``None``, where they depend on what was chosen: 1 for whatever can be
            allowed.
        """
        found, after = [], np.ones(1)
        for place, table in reversed(list(enumerate(self.tables or []))):
            mass = np.where(table >= 0, np.append(after, 0.0)[table], 0.0)
            after = mass.max(1, initial=0.0) if log_probs is None else mass @ np.exp(log_probs[place])
            after = after / max(after.max(initial=0.0), np.finfo(float).tiny)
            found.append(mass)
        return found[::-1]


def _merged(states: States) -> tuple[States, np.ndarray]:
    """Return those that differ, and which of them each is."""
    columns = [*states.chosen.values(), *states.sums.T]
    if not columns or not len(states):
        return states.take(np.arange(min(len(states), 1))), np.zeros(len(states), dtype=int)
    first, row = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)[1:]
    return states.take(first), row.reshape(-1)
