"""Which path computes one convolution whose weights are shared or per sample: rules measured per device type.

The rules for the CPU come from ``benchmarks/ops.py``; a device that was never measured gets the forms that need no
tuning.
"""

from __future__ import annotations

import math

import torch

from .compiled import is_faster, serves
from .geometry import Geometry
from .modes import Setting
from .problem import Choice

__all__ = ["FEW", "choose", "folds", "possible"]

TINY_DENSE = 4096  # elements of x up to which one matrix product beats oneDNN's set-up,
TINY_COLUMNS = 1 << 15  # if its columns, the patches of x, have no more values than this
FEW = 4  # outputs up to which oneDNN's vectors, of eight and more, stay empty,
SHARES = 6  # if the shares of all taps, before they are added up, have no more values than so many x;
SHARES_OF_FEW = 4  # of so many x with as many outputs as FEW, which fill half a vector, and without gradients of one x
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
# Transposed convolutions of images with a stride: all samples as one call with groups take longer than a call for each
# where all of these hold (CPU time on AVX-512, kernels of 2 to 5, 8 and 32 samples; `transposed` in benchmarks/ops.py).
LARGE_TRANSPOSED = {True: 4 << 20, False: 2 << 20}  # bytes of the output, which leave the cache (with gradients: True),
# LARGE_SAMPLE of each sample's part, and VECTOR channels, in and out; with just so many in, odd kernels without output
# padding are fast with groups.
DEPTHWISE = Choice("compiled", "depthwise in float32, for which there is a compiled kernel")
DENSE = Choice("compiled", "dense in float32, for which there is a compiled kernel")
GROUPED = Choice("grouped", "the batch fits into the groups of one convolution")


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the path of one convolution."""
    if is_faster(geometry, setting) and not _is_folded_first(geometry, setting.training):
        return DEPTHWISE if geometry.depthwise else DENSE
    if not geometry.per_sample:
        if _mixes(geometry, setting):
            return Choice("matmul", "a 1x1 kernel only mixes channels, and torch's convolution would lay x out anew")
        return Choice("plain", "all samples share the weights")
    if setting.portable:
        return Choice(_columns(geometry), "a dynamic batch must survive the export")
    if geometry.B == 0:
        return Choice(_columns(geometry), "an empty batch, which no grouped convolution takes")
    if geometry.B == 1:
        return Choice("single", "the batch holds one sample")
    if geometry.pointwise:
        return Choice("matmul", "a 1x1 kernel only mixes channels")
    if setting.device != "cpu" or setting.transformed:
        return GROUPED
    return _choose_for_images(geometry, setting) if geometry.axes == 2 else _choose_for_others(geometry, setting)


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List every path that can compute one convolution."""
    if not geometry.per_sample:
        paths = ["plain"]
    elif geometry.B == 1:
        paths = ["single", _columns(geometry)]
    else:
        looped = [] if torch.compiler.is_compiling() else ["looped"]  # a graph is for any batch
        paths = ["grouped", *looped, _columns(geometry)]
    if geometry.pointwise and (geometry.per_sample or geometry.G == 1):
        paths.append("matmul")
    if geometry.per_sample and folds(geometry):
        paths.append("folded")
    if geometry.per_sample and geometry.depthwise and setting.training and geometry.convolves_backward:
        paths += ["depthwise", "depthwise_in_chunks"]
    if setting.kernels and serves(geometry):
        paths.append("compiled")
    return paths


def _columns(geometry: Geometry) -> str:
    """Return the path that lays patches into columns."""
    return "unfold" if geometry.axes == 2 else "patches"


def _mixes(geometry: Geometry, setting: Setting) -> bool:
    """Whether one matrix product a sample is faster, although all samples share the weights."""
    if not geometry.pointwise or geometry.G > 1 or not (geometry.B > MANY_SAMPLES or setting.threaded):
        return False
    if setting.portable or setting.transformed or setting.channels_last:
        return False
    few = geometry.Cout <= 2 * math.prod(geometry.out)  # the gradients of all samples' weights need little room
    return setting.device == "cpu" and setting.dtype is torch.float32 and few


def _choose_for_images(geometry: Geometry, setting: Setting) -> Choice:
    elements = geometry.B * geometry.Cin * math.prod(geometry.size)
    columns = geometry.B * geometry.Cin * math.prod(geometry.kernel) * math.prod(geometry.out)
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


def _choose_for_others(geometry: Geometry, setting: Setting) -> Choice:
    """Only transposed convolutions of images were measured."""
    if geometry.axes == -2 and _loops_transposed(geometry, setting):
        return Choice("looped", "transposed and large: one sample at a time stays in the cache")
    return GROUPED


def _loops(geometry: Geometry, size: int) -> bool:
    """Whether one call a sample is faster than groups, for ``x`` of so many bytes."""
    if geometry.G > 1 or geometry.stride == (1, 1) or torch.compiler.is_compiling():
        return False
    return size >= max(LARGE_STRIDED, geometry.B * LARGE_SAMPLE) and min(geometry.Cin, geometry.Cout) > VECTOR


def _loops_transposed(geometry: Geometry, setting: Setting) -> bool:
    """Whether one call a sample is faster than groups."""
    if geometry.G > 1 or set(geometry.stride) == {1} or torch.compiler.is_compiling():
        return False
    sample = geometry.Cout * math.prod(geometry.out) * setting.dtype.itemsize
    large = sample >= LARGE_SAMPLE and geometry.B * sample >= LARGE_TRANSPOSED[setting.training]
    even = any(geometry.extra) or any(k % 2 == 0 for k in geometry.kernel)
    return large and geometry.Cout >= VECTOR and (geometry.Cin > VECTOR or (geometry.Cin == VECTOR and even))


def _own_backward(geometry: Geometry) -> bool:
    """Whether both gradients are convolutions, and faster as such."""
    return geometry.convolves_backward and (max(geometry.kernel) > 3 or geometry.dilation != (1, 1))


def folds(geometry: Geometry) -> bool:
    """Whether the taps can be mixed first and added up afterwards, in little memory."""
    small = geometry.Cout * math.prod(geometry.kernel) <= SHARES * geometry.Cin
    return geometry.axes == 2 and geometry.G == 1 and small and geometry.convolves_backward


def _is_folded_first(geometry: Geometry, training: bool) -> bool:
    """Whether mixing the taps first is faster than the compiled kernel too."""
    many = geometry.Cin > FOLDED[training] * geometry.Cout
    return many and geometry.per_sample and geometry.B > 1 and _is_folded(geometry, training)


def _is_folded(geometry: Geometry, training: bool) -> bool:
    """Whether mixing the taps first is faster than torch's convolution, of which most of each vector is empty."""
    if geometry.Cout > FEW or not folds(geometry):
        return False
    return geometry.Cout < FEW or FEW * math.prod(geometry.kernel) <= (SHARES_OF_FEW if training else 1) * geometry.Cin
