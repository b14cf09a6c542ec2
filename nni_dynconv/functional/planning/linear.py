"""Which path computes a linear map: its shapes alone decide."""

from __future__ import annotations

from .geometry import Geometry
from .modes import Setting
from .problem import Choice

__all__ = ["choose", "possible"]


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the path of one linear map."""
    counts = geometry.counts
    if not geometry.per_sample:
        return Choice("plain", "all samples share the weights")
    if counts is None:
        return Choice("matmul", "one matrix product for each sample")
    if len(set(counts)) == 1 and geometry.B:
        return Choice("stacked", "the samples of a block are more rows of one matrix")
    return Choice("split", "one shared map for each block of samples")


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List what can compute it: what is chosen."""
    return [choose(geometry, setting).path]
