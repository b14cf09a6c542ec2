"""Which path computes a convolution or linear map: rules measured per device type, in one place.

The rules for the CPU come from ``benchmarks/ops.py``; a device that was never measured gets the forms that need no
tuning.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..paths import kernels
from .direct import is_direct
from .geometry import Geometry, GeometryLinear, GeometryNd

__all__ = [
    "APPLIED",
    "DENSE",
    "FORMED",
    "GROUPED",
    "Choice",
    "Factors",
    "Setting",
    "can_apply",
    "choose",
    "choose_anywhere",
    "choose_factors",
    "choose_linear",
    "is_compiled",
    "possible",
]

TINY_DENSE = 4096  # elements of x up to which one matrix product beats oneDNN's set-up,
TINY_COLUMNS = 1 << 15  # if its columns, the patches of x, have no more values than this
FEW = 4  # outputs up to which oneDNN's vectors, of eight and more, stay empty,
SHARES = 6  # if the shares of all taps, before they are added up, have no more values than so many x;
SHARES_OF_FEW = 4  # of so many x with as many outputs as FEW, which fill half a vector, and without gradients of one x
# Factors applied against kernels formed, by benchmarks/low_rank.py. In CPU time (3x3, 16 to 128 channels, 8 to 128
# samples) forming took 1.3 to 40 times as long where they are applied without a base, with one 0.6 to 3.4 times.
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
LARGE = 8 << 20  # bytes of x above which chunks of samples are faster, as long as freed memory goes back to the system
FOLDED = {True: 64, False: 32}  # inputs for each output up to which the dense kernel beats mixing taps first
# Of more samples than these, and on several threads of any number, torch lays x out anew for a 1x1 kernel, which only
# mixes channels: one matrix product for each took a seventh to three quarters of the time (8 to 128 channels).
MANY_SAMPLES = 16
# Dense convolutions with a stride, and gradients: that of x by groups leaves the cache, a call for each sample does not
# (CPU time on AVX-512, kernels of 3 and 5, 16 to 64 channels, 8 and 32 samples; `stride 2` in benchmarks/ops.py).
LARGE_STRIDED = 3 << 20  # bytes of x from which it is faster to loop over the samples,
LARGE_SAMPLE = 96 << 10  # if each sample has as many bytes, or the calls themselves cost too much,
VECTOR = 16  # and if it has more channels, in and out, than fill one vector


class Setting(NamedTuple):
    """What, beside the shapes, decides."""

    device: str
    dtype: torch.dtype
    training: bool  # gradients are wanted
    kernels: bool = False  # the compiled kernels are there and may see these tensors
    portable: bool = False
    transformed: bool = False  # torch.func or forward-mode differentiation watches
    deterministic: bool = False  # what was measured on this machine must not count
    channels_last: bool = False  # x lies so in memory
    threaded: bool = False  # torch computes on more than one thread


class Factors(NamedTuple):
    """What of a weight that is given by factors its shape does not tell."""

    rank: int
    base: bool


class Choice(NamedTuple):
    """The name of a path (``conv.PATHS``) and the reason for it."""

    path: str
    why: str


APPLIED, FORMED = "applied", "formed"
DEPTHWISE = Choice("compiled", "depthwise in float32, for which there is a compiled kernel")
DENSE = Choice("compiled", "dense in float32, for which there is a compiled kernel")
GROUPED = Choice("grouped", "the batch fits into the groups of one convolution")


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the path of one convolution.

    Examples
    --------
    >>> from nni_dynconv.functional.planning.geometry import measure
    >>> geometry = measure((8, 16, 32, 32), (8, 4, 16, 1, 1), None, 1, 0, 1, 1)
    >>> choose(geometry, Setting("cpu", torch.float32, True)).path
    'matmul'
    """
    if is_compiled(geometry, setting) and not _is_folded_first(geometry, setting.training):
        return DEPTHWISE if geometry.depthwise else DENSE
    found = choose_anywhere(geometry, setting, columns="unfold")
    if found is not None:
        return found
    if setting.device == "cpu" and not setting.transformed:
        return _choose_on_cpu(geometry, setting)
    return GROUPED


def choose_anywhere(geometry: Geometry | GeometryNd, setting: Setting, columns: str) -> Choice | None:
    """Pick the path where it is the same on every device and over any axes of space; else ``None``.

    Parameters
    ----------
    columns
        The path that lays patches into columns.
    """
    if not geometry.per_sample:
        if _mixes(geometry, setting):
            return Choice("matmul", "a 1x1 kernel only mixes channels, and torch's convolution would lay x out anew")
        return Choice("plain", "all samples share the weights")
    if setting.portable:
        return Choice(columns, "a dynamic batch must survive the export")
    if geometry.B == 0:
        return Choice(columns, "an empty batch, which no grouped convolution takes")
    if geometry.B == 1:
        return Choice("single", "the batch holds one sample")
    if geometry.pointwise:
        return Choice("matmul", "a 1x1 kernel only mixes channels")
    return None


def is_compiled(geometry: Geometry | GeometryNd, setting: Setting) -> bool:
    """Whether a compiled kernel may serve, and is faster than what is chosen without it."""
    if not setting.kernels or setting.portable or setting.transformed or not kernels.serves(geometry):
        return False
    if isinstance(geometry, Geometry) and geometry.depthwise:
        return True
    keeps = setting.channels_last and not geometry.per_sample  # torch's own way, unlike every other, keeps that layout
    return not keeps and is_direct(geometry, setting.training)


def _mixes(geometry: Geometry | GeometryNd, setting: Setting) -> bool:
    """Whether one matrix product a sample is faster, although all samples share the weights."""
    if not geometry.pointwise or geometry.G > 1 or not (geometry.B > MANY_SAMPLES or setting.threaded):
        return False
    if setting.portable or setting.transformed or setting.channels_last:
        return False
    few = geometry.Cout <= 2 * math.prod(geometry.out)  # the gradients of all samples' weights need little room
    return setting.device == "cpu" and setting.dtype is torch.float32 and few


def choose_linear(geometry: GeometryLinear) -> Choice:
    """Pick the path of one linear map.

    Examples
    --------
    >>> choose_linear(GeometryLinear(8, (), 16, 4, per_sample=True)).path
    'matmul'
    """
    counts = geometry.counts
    if geometry.bias_counts is not None:
        return Choice("bias_apart", "the bias has other sets than the weight: it is added afterwards")
    if not geometry.per_sample:
        return Choice("plain", "all samples share the weights")
    if counts is None:
        return Choice("matmul", "one matrix product for each sample")
    if len(set(counts)) == 1 and geometry.B:
        return Choice("stacked", "the samples of a block are more rows of one matrix")
    return Choice("split", "one shared map for each block of samples")


def choose_factors(geometry: GeometryNd | GeometryLinear, rank: int, base: bool, setting: Setting) -> Choice:
    """Decide whether a call with a :class:`LowRank` weight applies its factors or forms the weight.

    Parameters
    ----------
    geometry
        Of the formed weight.
    rank
        Channels between the factors.
    base
        Whether the factors are on top of a shared base.

    Examples
    --------
    >>> from nni_dynconv.functional.planning.geometry import measure_nd
    >>> geometry = measure_nd(2, (32, 64, 16, 16), (32, 64, 64, 3, 3), None, 1, 1, 1, 1)
    >>> choose_factors(geometry, 4, False, Setting("cpu", torch.float32, True)).path
    'applied'
    """
    why = _why_whole(geometry, setting)
    if why is None:
        rule = _why_formed if isinstance(geometry, GeometryNd) else _why_formed_linear
        why = rule(geometry, rank, base, setting)  # type: ignore[arg-type]
    return Choice(APPLIED, "few channels stand between the factors") if why is None else Choice(FORMED, why)


def can_apply(geometry: GeometryNd | GeometryLinear, setting: Setting) -> bool:
    """Whether factors can be applied, so that measuring it makes sense."""
    return _why_whole(geometry, setting) is None and geometry.B > 0


def _why_whole(geometry: GeometryNd | GeometryLinear, setting: Setting) -> str | None:
    if setting.portable or setting.transformed or setting.deterministic:
        return "this mode knows whole weights only"
    if isinstance(geometry, GeometryNd) and (geometry.G > 1 or geometry.transposed):
        return "the factors would mix the wrong channels"
    return None


def _why_formed(geometry: GeometryNd, rank: int, base: bool, setting: Setting) -> str | None:
    if not geometry.per_sample or geometry.counts is not None or geometry.B < 2:
        return "one kernel serves the whole batch, or each a block of samples"
    if setting.device != "cpu" or len(geometry.size) == 3:
        return "applying was never measured here"
    planar = geometry.planar()
    if rank <= FEW and not planar.pointwise and not _folds(planar._replace(Cout=rank)):
        return "a convolution to so few channels is slow"
    wide = WIDE_MIXING if base or geometry.pointwise else WIDE
    if min(geometry.Cin, geometry.Cout) < max(wide, NARROW * rank):
        return "the kernel is narrow, or the rank large"
    if base and (geometry.pointwise or geometry.Cin * geometry.Cout < CROWDED * math.prod(geometry.out)):
        return "beside the convolution with the base, forming the kernel costs little"
    return None


def _why_formed_linear(geometry: GeometryLinear, rank: int, base: bool, setting: Setting) -> str | None:
    if setting.device != "cpu":
        return "applying was never measured here"
    if geometry.B == 0 or choose_linear(geometry).path == "split":
        return "the batch is empty, or its blocks are unequal"
    channels = geometry.Cin + geometry.Cout
    if geometry.values < channels * max(THIN if geometry.per_sample else ALONE, rank + 1):
        return "channels are few, or the rank is large"
    if base and geometry.values * geometry.sets < channels * ROWS * geometry.rows:
        return "beside the map with the base, forming the weight costs little"
    if base and geometry.values * geometry.sets < MANY:
        return "all weights together are small"
    return None


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List every path that can compute one convolution."""
    if not geometry.per_sample:
        paths = ["plain"]
    elif geometry.B == 1:
        paths = ["single", "unfold"]
    else:
        looped = [] if torch.compiler.is_compiling() else ["looped"]  # a graph is for any batch
        paths = ["grouped", *looped, "unfold"]
    if geometry.pointwise and (geometry.per_sample or geometry.G == 1):
        paths.append("matmul")
    if geometry.per_sample and _folds(geometry):
        paths.append("folded")
    if geometry.per_sample and geometry.depthwise and setting.training and geometry.convolves_backward:
        paths += ["depthwise", "depthwise_in_chunks"]
    if setting.kernels and kernels.serves(geometry):
        paths.append("compiled")
    return paths


def _choose_on_cpu(geometry: Geometry, setting: Setting) -> Choice:
    elements = geometry.B * geometry.Cin * geometry.H * geometry.W
    columns = geometry.B * geometry.Cin * geometry.Kh * geometry.Kw * geometry.Ho * geometry.Wo
    if geometry.G == 1 and elements <= TINY_DENSE and columns <= TINY_COLUMNS:
        return Choice("unfold", f"dense and tiny: the patches of x have at most {TINY_COLUMNS} values")
    if _is_folded(geometry, setting.training):
        return Choice("folded", "dense with few outputs: channels are mixed tap by tap")
    if geometry.depthwise and setting.training and _own_backward(geometry):
        if elements * setting.dtype.itemsize > LARGE:
            return Choice("depthwise_in_chunks", "torch's depthwise backward is slow, and x is large")
        return Choice("depthwise", "torch's depthwise backward is slow for this kernel")
    if setting.training and _loops(geometry, elements * setting.dtype.itemsize):
        return Choice("looped", "strided and large, with gradients: one sample at a time stays in the cache")
    return GROUPED


def _loops(geometry: Geometry, size: int) -> bool:
    """Whether one call a sample is faster than groups, for ``x`` of so many bytes."""
    if geometry.G > 1 or geometry.stride == (1, 1) or torch.compiler.is_compiling():
        return False
    return size >= max(LARGE_STRIDED, geometry.B * LARGE_SAMPLE) and min(geometry.Cin, geometry.Cout) > VECTOR


def _own_backward(geometry: Geometry) -> bool:
    """Whether both gradients are convolutions, and faster as such."""
    return geometry.convolves_backward and (max(geometry.Kh, geometry.Kw) > 3 or geometry.dilation != (1, 1))


def _folds(geometry: Geometry) -> bool:
    """Whether the taps can be mixed first and added up afterwards, in little memory."""
    small = geometry.Cout * geometry.Kh * geometry.Kw <= SHARES * geometry.Cin
    return geometry.G == 1 and small and geometry.convolves_backward


def _is_folded_first(geometry: Geometry, training: bool) -> bool:
    """Whether mixing the taps first is faster than the compiled kernel too."""
    many = geometry.Cin > FOLDED[training] * geometry.Cout
    return many and geometry.per_sample and geometry.B > 1 and _is_folded(geometry, training)


def _is_folded(geometry: Geometry, training: bool) -> bool:
    """Whether mixing the taps first is faster than torch's convolution, of which most of each vector is empty."""
    if geometry.Cout > FEW or not _folds(geometry):
        return False
    return geometry.Cout < FEW or FEW * geometry.Kh * geometry.Kw <= (SHARES_OF_FEW if training else 1) * geometry.Cin
