"""The most probable architecture that keeps a space's constraints, for any sampler's walk."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .choices import Choices

__all__ = ["TRIES", "most_probable"]

TRIES = 1000
Follow = Callable[[Callable[[str, Tensor], int]], dict[str, Any]]
"""Goes through the labels, is told for each label's logits which candidate to take, and returns the sample."""
Entry = tuple[float, int, tuple[int, ...], dict[str, Any]]


def most_probable(follow: Follow, choices: Choices) -> dict[str, Any] | None:
    """Return the most probable sample that keeps the constraints, or ``None`` where none was found.

    Samples are tried in the order of their probability, roughly so where choices depend on those before. Where a
    thousand are in vain, as can be where all are about equally probable, it is the most probable of a thousand draws.
    """
    return _next_best(follow, choices) or _best_of_draws(follow, choices)


def _next_best(follow: Follow, choices: Choices) -> dict[str, Any] | None:
    """Try ranks, one for each label: the children of a row raise its last rank that is not 0, or one after it."""
    numbers = itertools.count()  # of equal ones the first goes first, and samples are never compared
    sizes = [len(choice) for choice in choices.values()]
    heap = [_entry(follow, numbers, (0,) * len(sizes))]
    while heap and next(numbers) < TRIES:
        _, _, ranks, sample = heapq.heappop(heap)
        if choices.broken(sample) is None:
            return sample
        last = max((place for place, rank in enumerate(ranks) if rank), default=0)
        for place in range(last, len(ranks)):
            if ranks[place] + 1 < sizes[place]:
                child = (*ranks[:place], ranks[place] + 1, *ranks[place + 1 :])
                heapq.heappush(heap, _entry(follow, numbers, child))
    return None


def _entry(follow: Follow, numbers: Iterator[int], ranks: tuple[int, ...]) -> Entry:
    """Return the sample that has the candidate of this rank at each label, behind what it is sorted by."""
    places = iter(ranks)
    sample, cost = _walked(follow, lambda logits: int(logits.argsort(descending=True, stable=True)[next(places)]))
    return cost, next(numbers), ranks, sample


def _best_of_draws(follow: Follow, choices: Choices) -> dict[str, Any] | None:
    """Draw by a generator of its own, so that asking for the best changes nothing."""
    generator = torch.Generator().manual_seed(0)

    def take(logits: Tensor) -> int:
        return int(torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator))

    drawn = [_walked(follow, take) for _ in range(TRIES)]
    kept = [one for one in drawn if choices.broken(one[0]) is None]
    return min(kept, key=lambda one: one[1])[0] if kept else None


def _walked(follow: Follow, take: Callable[[Tensor], int]) -> tuple[dict[str, Any], float]:
    """Return the sample of the candidates taken, and minus its log-probability."""
    cost = 0.0

    def pick(label: str, logits: Tensor) -> int:
        nonlocal cost
        number = take(logits)
        cost -= float(logits.log_softmax(-1)[number])
        return number

    return follow(pick), cost
