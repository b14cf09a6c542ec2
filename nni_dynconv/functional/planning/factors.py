"""Whether a call whose weight is given by factors applies them, or forms it: rules by ``benchmarks/low_rank.py``."""

from __future__ import annotations

import math

import torch

from . import linear
from .convolutions import FEW, folds
from .geometry import Geometry
from .modes import Factors, Setting
from .problem import Choice

__all__ = ["APPLIED", "choose", "possible"]

# Kernels of convolutions: in CPU time (3x3, 16 to 128 channels, 8 to 128 samples) forming them took 1.3 to 40 times as
# long as applying factors without a base, with one 0.6 to 3.4 times.
NARROW = 4  # channels, in and out, for each of the rank from which applying without a base is faster,
WIDE = 16  # if there are so many of them,
WIDE_MIXING = 32  # of 1x1 kernels, and with a base, which is a convolution of its own, so many
CROWDED = 16  # with a base: pairs of channels, in and out, for each place of the output from which it is no slower
# The same of linear maps: without a base forming took 0.8 to 132 times as long where each sample has its own, 0.9 to 9
# times where all share them, and with a base 0.9 to 162 times.
THIN = 12  # values of the weight for each channel, in and out together, from which applying without a base is faster
ALONE = 24  # the same of a weight that all samples share: it is formed once
ROWS = 2  # with a base: so many of them for each row that the weight maps,
MANY = 1 << 15  # and so many values in all weights, so that the calls themselves cost little
APPLIED, FORMED = "applied", "formed"


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Decide for the geometry of the formed weight."""
    why = _why_whole(geometry, setting)
    if why is None and setting.factors is not None:
        rule = _why_formed if geometry.kernel else _why_formed_linear
        why = rule(geometry, setting.factors, setting)
    return Choice(APPLIED, "few channels stand between the factors") if why is None else Choice(FORMED, why)


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List what can compute the call."""
    return [APPLIED, FORMED] if _why_whole(geometry, setting) is None else [FORMED]


def _why_whole(geometry: Geometry, setting: Setting) -> str | None:
    if setting.portable or setting.transformed or setting.deterministic or torch.compiler.is_compiling():
        return "this mode knows whole weights only"
    if geometry.G > 1 or geometry.transposed:
        return "the factors would mix the wrong channels"
    return None


def _why_formed(geometry: Geometry, factors: Factors, setting: Setting) -> str | None:
    if not geometry.per_sample or geometry.counts is not None or geometry.B < 2:
        return "one kernel serves the whole batch, or each a block of samples"
    if setting.device != "cpu" or len(geometry.size) == 3:
        return "applying was never measured here"
    if factors.rank <= FEW and not geometry.pointwise and not folds(geometry._replace(Cout=factors.rank)):
        return "a convolution to so few channels is slow"
    wide = WIDE_MIXING if factors.base or geometry.pointwise else WIDE
    if min(geometry.Cin, geometry.Cout) < max(wide, NARROW * factors.rank):
        return "the kernel is narrow, or the rank large"
    if factors.base and (geometry.pointwise or geometry.Cin * geometry.Cout < CROWDED * math.prod(geometry.out)):
        return "beside the convolution with the base, forming the kernel costs little"
    return None


def _why_formed_linear(geometry: Geometry, factors: Factors, setting: Setting) -> str | None:
    if setting.device != "cpu":
        return "applying was never measured here"
    if geometry.B == 0 or linear.choose(geometry, setting).path == "split":
        return "the batch is empty, or its blocks are unequal"
    channels, rows = geometry.Cin + geometry.Cout, geometry.B * math.prod(geometry.size)
    if geometry.values < channels * max(THIN if geometry.per_sample else ALONE, factors.rank + 1):
        return "channels are few, or the rank is large"
    if factors.base and geometry.values * geometry.sets < channels * ROWS * rows:
        return "beside the map with the base, forming the weight costs little"
    if factors.base and geometry.values * geometry.sets < MANY:
        return "all weights together are small"
    return None
