"""Which of several points are the best where each has several numbers: fronts, and how crowded they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["crowding", "fronts", "order"]

Points = Sequence[Sequence[float]]


def fronts(points: Points) -> list[int]:
    """Return the number of each point's front: 0 where no point is as good in every number and better in one.

    The points of front 1 are those that only points of front 0 are better than, and so on.

    Parameters
    ----------
    points
        Lower is better, in each of their numbers.

    References
    ----------
    Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Transactions on Evolutionary
    Computation 6(2), 2002, section III-A.

    Examples
    --------
    >>> fronts([(1.0, 4.0), (2.0, 2.0), (3.0, 3.0), (4.0, 1.0)])
    [0, 0, 1, 0]
    """
    values = np.asarray(points, dtype=float)
    if not len(values):
        return []
    first, second = values[:, None], values[None]
    beaten = (first >= second).all(-1) & (first > second).any(-1)  # row by column
    numbers = np.full(len(values), -1)
    while (numbers < 0).any():
        left = numbers < 0
        numbers[left & ~(beaten & left).any(1)] = numbers.max() + 1
    return numbers.tolist()


def crowding(points: Points) -> list[float]:
    """Return how far the neighbours of each point of one front are; of the ends, infinitely far.

    Along each number it is the distance of the two neighbours over that of the ends, and the sum of all.

    References
    ----------
    As of :func:`fronts`, section III-B.

    Examples
    --------
    >>> crowding([(0.0, 4.0), (1.0, 2.0), (4.0, 0.0)])
    [inf, 2.0, inf]
    """
    values = np.asarray(points, dtype=float)
    distances = np.zeros(len(values))
    for column in values.T:
        places = np.argsort(column, kind="stable")
        distances[places[[0, -1]]] = np.inf
        if np.isfinite(column).all() and np.ptp(column) > 0:
            distances[places[1:-1]] += (column[places[2:]] - column[places[:-2]]) / np.ptp(column)
    return distances.tolist()


def order(points: Points) -> list[int]:
    """Return the places of points, the best first: by front, of one front the least crowded, then as they stand.

    With one number a point it is the order of these numbers.

    Examples
    --------
    >>> order([(3.0,), (1.0,), (2.0,)])
    [1, 2, 0]
    >>> order([(0.0, 4.0), (3.0, 3.0), (1.0, 2.0), (4.0, 0.0)])
    [0, 3, 2, 1]
    """
    numbers = fronts(points)
    distances = [0.0] * len(numbers)
    for number in set(numbers):
        places = [place for place, one in enumerate(numbers) if one == number]
        for place, distance in zip(places, crowding([points[place] for place in places]), strict=True):
            distances[place] = distance
    return sorted(range(len(numbers)), key=lambda place: (numbers[place], -distances[place], place))
