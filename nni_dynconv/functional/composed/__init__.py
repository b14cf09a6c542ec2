"""Weights that are given by parts: a call may apply these to what goes through it, and never hold the whole weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .low_rank import LowRank
from .mixed import Mixed
from .scaled import Scaled

__all__ = [
    "COMPOSED",
    "Composed",
    "LowRank",
    "Mixed",
    "Parts",
    "Scaled",
    "form_all",
    "parts_of",
    "split_sets",
    "tensors_of",
    "with_parts",
]

Composed = LowRank | Scaled | Mixed
COMPOSED = (LowRank, Scaled, Mixed)
SETS = {"LowRank": ("A", "B"), "Scaled": ("scale",), "Mixed": ("shares",)}
"""What of each kind has a set for each sample."""


class Parts(NamedTuple):
    """What of a weight that is given by parts its shape does not tell."""

    kind: str
    rank: int
    """Of a product; how many weights a mixture has; 1 of a scale."""
    base: bool


def parts_of(weight: Composed) -> Parts:
    """Say what a weight is made of."""
    return Parts(type(weight).__name__, weight.rank, weight.base is not None)


def tensors_of(weight: Composed) -> dict[str, Tensor]:
    """Return the tensors that a weight is made of, by name."""
    return {name: one for name, one in weight._asdict().items() if isinstance(one, Tensor)}


def form_all(weights: Mapping[str, Tensor | Composed]) -> Mapping[str, Tensor]:
    """Return an op's weights as tensors."""
    return {name: one.whole() if isinstance(one, COMPOSED) else one for name, one in weights.items()}


def split_sets(weight: Composed, count: int) -> list[Composed]:
    """Cut a weight that has a set for each sample into those of ``count`` samples each, or fewer at the end.

    Examples
    --------
    >>> import torch
    >>> weight = Mixed(torch.ones(3, 2), torch.ones(2, 4, 1, 1))
    >>> [one.shape for one in split_sets(weight, 2)]
    [(2, 4, 1, 1), (1, 4, 1, 1)]
    """
    names = SETS[type(weight).__name__]
    pieces = zip(*[getattr(weight, name).split(count) for name in names], strict=True)
    return [weight._replace(**dict(zip(names, one, strict=True))) for one in pieces]


def with_parts(weight: Composed, tensors: list[Tensor]) -> Composed:
    """Return a weight like another one, of other tensors."""
    given: dict[str, Any] = dict(zip(tensors_of(weight), tensors, strict=True))
    return weight._replace(**given)
