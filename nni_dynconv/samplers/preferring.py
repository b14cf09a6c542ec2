"""What a sampler prefers among the architectures that keep a space's constraints, and draws among those alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import SampleError
from .constrained import Ahead, Ranked, leading
from .soundness import check_logits

if TYPE_CHECKING:
    from .base import Sampler, Walk

__all__ = ["TRIES", "WAY_OUT", "draw_allowed", "logits_after", "most_probable"]

TRIES = 1000
MOST_INDEPENDENT = 1 << 17  # beginnings that are followed at once
MOST_ASKED = 1 << 14  # the same where a constraint that is asked one by one, in Python, ties more than a table holds
MOST_ROUNDED = 64  # times as many as are wanted are looked at, where rounding decides
EXHAUSTED = 16  # times `reach`: spaces of up to so many architectures are gone through where labels depend on others
WAY_OUT = "Loosen it, or choose by one label among the combinations that are allowed."


def most_probable(sampler: Sampler, count: int) -> Ranked:
    """Return what :meth:`Sampler.most_probable` does.

    NNI is asked of each whether it keeps the constraints. Where the rounding of a sum decides on that, and some do not,
    more are looked for.
    """
    choices, asked = sampler.choices, count
    while True:
        found = leading(choices.growth, lambda: _ahead_of(sampler), asked, _width(sampler), sampler.independent)
        samples = [_named(sampler, numbers) for numbers in found.numbers.tolist()]
        kept = [place for place, sample in enumerate(samples) if choices.broken(sample) is None][:count]
        if len(kept) == count or len(samples) < asked or asked >= MOST_ROUNDED * count:
            break
        asked *= 2
    least = found.log_probs[kept[-1]] if len(kept) == count else -math.inf
    proven = found.missed <= least and (len(kept) == count or len(samples) < asked)
    return Ranked([samples[place] for place in kept], found.log_probs[kept].tolist(), proven)


def _width(sampler: Sampler) -> int:
    """Return how many beginnings are followed at most: all, in a space that can be gone through."""
    size = math.prod(len(choice) for choice in sampler.choices.values())
    asked = any(check.table is None for check in sampler.choices.growth.checks)
    narrow = (MOST_ASKED if asked else MOST_INDEPENDENT) if sampler.independent else sampler.reach
    wide = MOST_INDEPENDENT if sampler.independent else EXHAUSTED * sampler.reach
    return wide if size <= wide else narrow


def _ahead_of(sampler: Sampler) -> Ahead:
    """Make what tells the log-probabilities of labels in turn, of walks that branch off one another."""
    labels, state = iter(sampler.choices), None

    def ahead(numbers: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        nonlocal state
        if rows is not None:
            state = pytree.tree_map_only(Tensor, lambda one: one[torch.from_numpy(rows).to(one.device)], state)
        logits, state = sampler.ahead(torch.from_numpy(numbers), state)
        check_logits(sampler, next(labels), logits)
        return np.asarray(logits.double().log_softmax(-1).cpu())

    return ahead


def logits_after(walk: Walk, numbers: Sequence[int]) -> Tensor:
    """Return the logits of the label that follows these choices."""
    logits = next(walk)
    for number in numbers:
        logits = walk.send(number)
    return logits


def _named(sampler: Sampler, numbers: Sequence[int]) -> dict[str, Any]:
    pairs = zip(sampler.choices.items(), numbers, strict=True)
    return {label: choice.candidates[number] for (label, choice), number in pairs}


@torch.no_grad()
def draw_allowed(sampler: Sampler, broken: object) -> dict[str, Any]:
    """Draw where what is allowed is rare: a candidate is taken as often as what follows it is allowed.

    For independent labels the distribution is that of drawing until a draw is allowed. For others it is that of the
    walk, kept from candidates that nothing allowed follows.

    Parameters
    ----------
    broken
        The constraint that was broken last, for the error.

    Raises
    ------
    SampleError
        Nothing is allowed, or the space is too large to tell what is.
    """
    tables = sampler.choices.allowed.tables
    masses = sampler.choices.allowed.masses(_log_probs(sampler) if sampler.independent else None)
    if tables is None or not (masses[0] > 0).any():
        why = "nothing keeps it" if tables is not None else "the space is too large to tell what keeps it"
        raise SampleError(
            f"{TRIES} draws in a row broke a constraint of the space, the last one {broken}, and {why}. {WAY_OUT}"
        )
    for _ in range(TRIES):
        numbers = _Allowed(sampler, tables, masses)
        sample = sampler._follow_finite(numbers.pick)
        if sampler.choices.broken(sample) is None:  # but for the rounding of a sum, it is the first
            return sample
    raise SampleError(f"{TRIES} draws in a row broke a constraint of the space by rounding. {WAY_OUT}")


def _log_probs(sampler: Sampler) -> list[np.ndarray]:
    ahead = _ahead_of(sampler)
    return [ahead(np.zeros((1, place), dtype=int), None)[0] for place in range(len(sampler.choices))]


class _Allowed:
    """One draw, label by label."""

    def __init__(self, sampler: Sampler, tables: Sequence[np.ndarray], masses: Sequence[np.ndarray]):
        self.sampler, self.row = sampler, 0
        self.ahead = zip(tables, masses, strict=True)

    def pick(self, label: str, logits: Tensor) -> int:
        """Draw as the sampler does, until it is taken: what a sampler keeps of its draws is that of this one."""
        table, mass = next(self.ahead)
        share = mass[self.row] / mass[self.row].max()
        for _ in range(100 * TRIES):
            number = self.sampler._draw(label, logits)
            if float(torch.rand((), generator=self.sampler.generator)) < share[number]:
                self.row = int(table[self.row, number])
                return number
        raise SampleError(
            f"Label `{label}` is decided for candidates that break a constraint of the space: {100 * TRIES} draws gave "
            f"no other. Lower the sampler's learning rate. {WAY_OUT}"
        )
