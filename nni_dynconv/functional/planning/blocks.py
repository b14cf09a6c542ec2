"""How sets of weights that serve blocks of samples are computed: by one convolution, or by one that serves all."""

from __future__ import annotations

import math

from .compiled import is_faster, serves
from .geometry import Geometry
from .modes import Setting
from .problem import Choice

__all__ = ["choose", "possible"]

LARGE_BLOCK = 1 << 15  # elements of x in a block from which a call for each block beats the copies of one for all


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the form of one convolution."""
    if setting.portable or not _are_several_equal(geometry) or not geometry.B:
        return Choice("split", "one shared convolution for each block of samples")
    if _stacks(geometry):
        return Choice("stacked", "a 1x1 kernel only mixes channels: the samples of a block lie side by side")
    if is_faster(geometry, setting):
        return Choice("compiled", "equal blocks in float32, for which there is a compiled kernel")
    block = geometry.B // geometry.sets * geometry.Cin * math.prod(geometry.size)
    if setting.device == "cpu" and block > LARGE_BLOCK:
        return Choice("split", "one shared convolution for each block of samples: the blocks are large")
    return Choice("regrouped", "the blocks of samples fit into the groups of one convolution")


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List every form that can compute one convolution."""
    if not _are_several_equal(geometry):
        return ["split"]
    stacked = ["stacked"] if _stacks(geometry) else []
    return ["split", "regrouped", *stacked, *(["compiled"] if setting.kernels and serves(geometry) else [])]


def _are_several_equal(geometry: Geometry) -> bool:
    counts = geometry.counts or ()
    return len(counts) > 1 and len(set(counts)) == 1


def _stacks(geometry: Geometry) -> bool:
    return geometry.pointwise and set(geometry.stride) == {1}
