"""Codes that have places, ``[B] dim Gh Gw``: one for each patch of an image, or one for all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ...sites import WeightSpec

__all__ = ["code_of_all", "codes_of_patches", "has_places", "in_patches"]


def has_places(code: Tensor | None) -> bool:
    """Whether a code is a map of codes."""
    return code is not None and code.dim() > 2


def code_of_all(code: Tensor) -> Tensor:  # [B] dim Gh Gw -> [B] dim
    """Return one code for the whole image."""
    return code.mean((-2, -1))


def codes_of_patches(code: Tensor, grid: tuple[int, int]) -> Tensor:  # [B] dim H W -> [B*]Gh*Gw dim
    """Return a code for each patch of a grid, sample by sample and row by row: the mean of those that lie there."""
    pooled = code if tuple(code.shape[-2:]) == grid else F.adaptive_avg_pool2d(code, grid)
    return pooled.movedim(-3, -1).flatten(0, -2)


def in_patches(
    made: Mapping[str, Tensor], specs: Sequence[WeightSpec], lead: Sequence[int], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Lay sets that were made for patches, ``[B*]Gh*Gw ...``, out as ``[B] Gh Gw ...``; what is static stays.

    Parameters
    ----------
    lead
        ``(-1,)`` where samples have their own, ``()`` where they share them.
    """
    ranks = {spec.name: len(spec.shape) for spec in specs}
    return {name: one if one.dim() == ranks[name] else one.unflatten(0, (*lead, *grid)) for name, one in made.items()}
