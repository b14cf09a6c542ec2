"""The largest and the smallest architecture of a space."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

from ...samplers import Choice, Choices
from ..ranking.contest import Sample

__all__ = ["extremes"]


def extremes(choices: Choices, cost: Callable[[Sample], float], start: Sample) -> tuple[Sample, Sample]:
    """Return the largest and the smallest architecture.

    A choice among numbers, such as widths, kernel sizes and depths, takes the largest, or the smallest. Any other takes
    the candidate with which the architecture costs most, or least, one choice after the other.

    Parameters
    ----------
    choices
        Of the space, with its constraints.
    cost
        Of an architecture, such as its multiply-adds.
    start
        An architecture that keeps the constraints. Where there are any, and the largest or smallest breaks them, all
        choices go by cost, from this one on, as long as one of them alone can be made larger or smaller.

    Examples
    --------
    >>> choices = Choices({"width": Choice("width", (8, 32, 16)), "op": Choice("op", ("pool", "conv"))})
    >>> cost = lambda sample: sample["width"] * (9 if sample["op"] == "conv" else 0)
    >>> extremes(choices, cost, {"width": 8, "op": "pool"})
    ({'width': 32, 'op': 'conv'}, {'width': 8, 'op': 'pool'})
    """
    return _end(choices, cost, start, 1), _end(choices, cost, start, -1)


def _end(choices: Choices, cost: Callable[[Sample], float], start: Sample, sign: int) -> Sample:
    counted = {name: one for name, one in choices.items() if _of_numbers(one)}
    ends = {name: max(one.candidates, key=lambda value: sign * value) for name, one in counted.items()}
    others = [name for name in choices if name not in counted]
    found = _swept({**start, **ends}, choices, cost, sign, others, lambda one: True)
    if choices.broken(found) is None:
        return found
    found, before = dict(start), None
    while found != before:
        before = found
        found = _swept(found, choices, cost, sign, list(choices), lambda one: choices.broken(one) is None)
    return found


def _swept(
    sample: Sample,
    choices: Choices,
    cost: Callable[[Sample], float],
    sign: int,
    labels: list[str],
    allowed: Callable[[Sample], bool],
) -> Sample:
    """Give each label in turn its costliest candidate, or its cheapest; of equal ones the one that it has."""
    for label in labels:
        values = [sample[label], *choices[label].candidates]
        changed = [one for one in ({**sample, label: value} for value in values) if allowed(one)]
        sample = max(changed, key=lambda one: sign * cost(one))
    return sample


def _of_numbers(choice: Choice) -> bool:
    def is_number(value: Any) -> bool:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)

    return choice.inputs is None and all(map(is_number, choice.candidates))
