"""Whether a call whose weight is given by parts applies them, or forms it.

The rules of products come from ``benchmarks/low_rank.py``, those of scales and mixtures from
``benchmarks/networks/parts.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch.compiler import is_compiling

from ..composed import Parts
from . import linear
from .convolutions import FEW, folds
from .geometry import Geometry
from .modes import Setting, is_portable, is_transformed
from .problem import Choice

__all__ = ["APPLIED", "choose", "piece_of", "possible"]

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
# A scaled base, of 3 to 512 channels: forming took 0.65 to 0.91 times as long below this, 1.0 to 12 times above; of
# depthwise kernels 0.62 and 0.84 times.
TAPS = 6  # places of an output for each value of x that meets in one
# Mixtures, of 4 and 8 weights, of 32 to 512 channels in and out, 3x3 and 1x1, 8 to 64 samples: mixing the weights took
# 1.3 to 2.3 times as long as mixing outputs below this, 0.1 to 1.1 times above.
OUTPUTS = 16  # weights to mix, times places of an output
# Weights that are formed, some samples at a time: of mixtures of 256 channels, 3x3, pieces of 8 of 32 samples took 0.85
# to 1.0 of the time of all at once, pieces of 2 samples 1.1 to 1.25 times; a step of a ResNet-18 with products took
# 1.15 times with pieces of 8 MB, 1.08 with 16, 1.05 with 32.
PIECES = {"Mixed": 1 << 23, "Scaled": 1 << 23, "LowRank": 1 << 25}  # bytes of the weights of a piece,
LEAST = 4  # and samples, or as many as a mixture has weights, whose gradients each piece adds up
APPLIED, FORMED = "applied", "formed"


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Decide for the geometry of the formed weight."""
    assert setting.parts is not None
    kind = KINDS[setting.parts.kind]
    why = kind.why_whole(geometry, setting) or kind.why_formed(geometry, setting.parts, setting)
    return Choice(APPLIED, kind.why_applied) if why is None else Choice(FORMED, why)


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List what can compute the call."""
    assert setting.parts is not None
    whole = KINDS[setting.parts.kind].why_whole(geometry, setting)
    return [APPLIED, FORMED] if whole is None else [FORMED]


def piece_of(geometry: Geometry, parts: Parts, itemsize: int) -> int | None:
    """Return how many samples' weights are formed at a time; ``None``: all at once."""
    if not geometry.per_sample or geometry.counts is not None or is_portable() or is_transformed() or is_compiling():
        return None
    least = max(LEAST, parts.rank) if parts.kind == "Mixed" else LEAST
    most = max(least, PIECES[parts.kind] // max(1, geometry.values * itemsize))
    return None if most >= geometry.B else math.ceil(geometry.B / math.ceil(geometry.B / most))


def _why_scale_whole(geometry: Geometry, setting: Setting) -> str | None:
    return None if geometry.per_sample else "one scale serves the whole batch"


def _why_scale_formed(geometry: Geometry, parts: Parts, setting: Setting) -> str | None:
    if setting.device != "cpu" or setting.portable or setting.transformed or is_compiling():
        return None
    few = geometry.depthwise or geometry.values * TAPS <= geometry.Cout * _places(geometry)
    if not geometry.kernel or geometry.counts is not None or not few:
        return None
    return "so few values meet in an output that a kernel of each sample's own is as fast, and no output is scaled"


def _places(geometry: Geometry) -> int:
    return math.prod(geometry.size if geometry.transposed else geometry.out)


def _why_mixture_formed(geometry: Geometry, parts: Parts, setting: Setting) -> str | None:
    if setting.device != "cpu":
        return "mixing outputs was never measured here"
    if not geometry.per_sample or parts.rank * math.prod(geometry.out) > OUTPUTS:
        return "outputs are many beside the weights, which one matrix product mixes"
    return None


def _why_whole(geometry: Geometry, setting: Setting) -> str | None:
    if setting.portable or setting.transformed or setting.deterministic or is_compiling():
        return "this mode knows whole weights only"
    if geometry.G > 1 or geometry.transposed:
        return "the parts would mix the wrong channels"
    return None


def _why_formed(geometry: Geometry, parts: Parts, setting: Setting) -> str | None:
    if not geometry.kernel:
        return _why_formed_linear(geometry, parts, setting)
    if not geometry.per_sample or geometry.counts is not None or geometry.B < 2:
        return "one kernel serves the whole batch, or each a block of samples"
    if setting.device != "cpu" or len(geometry.size) == 3:
        return "applying was never measured here"
    if parts.rank <= FEW and not geometry.pointwise and not folds(geometry._replace(Cout=parts.rank)):
        return "a convolution to so few channels is slow"
    wide = WIDE_MIXING if parts.base or geometry.pointwise else WIDE
    if min(geometry.Cin, geometry.Cout) < max(wide, NARROW * parts.rank):
        return "the kernel is narrow, or the rank large"
    if parts.base and (geometry.pointwise or geometry.Cin * geometry.Cout < CROWDED * math.prod(geometry.out)):
        return "beside the convolution with the base, forming the kernel costs little"
    return None


def _why_formed_linear(geometry: Geometry, parts: Parts, setting: Setting) -> str | None:
    if setting.device != "cpu":
        return "applying was never measured here"
    if geometry.B == 0 or linear.choose(geometry, setting).path == "split":
        return "the batch is empty, or its blocks are unequal"
    channels, rows = geometry.Cin + geometry.Cout, geometry.B * math.prod(geometry.size)
    if geometry.values < channels * max(THIN if geometry.per_sample else ALONE, parts.rank + 1):
        return "channels are few, or the rank is large"
    if parts.base and geometry.values * geometry.sets < channels * ROWS * rows:
        return "beside the map with the base, forming the weight costs little"
    if parts.base and geometry.values * geometry.sets < MANY:
        return "all weights together are small"
    return None


class _Kind(NamedTuple):
    why_whole: Callable[[Geometry, Setting], str | None]
    why_formed: Callable[[Geometry, Parts, Setting], str | None]
    why_applied: str


KINDS = {
    "LowRank": _Kind(_why_whole, _why_formed, "few channels stand between the factors"),
    "Scaled": _Kind(_why_scale_whole, _why_scale_formed, "all samples share the base, whose outputs are scaled"),
    "Mixed": _Kind(_why_whole, _why_mixture_formed, "outputs are few beside the weights: those are mixed"),
}
