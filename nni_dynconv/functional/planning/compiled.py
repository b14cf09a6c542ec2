"""Where a compiled kernel serves, and is faster than torch's operators: rules for vectors of 8 and 16.

Measured on AVX-512, and with torch, oneDNN and the kernel held to AVX2: kernels of 1 to 7, strides 1 to 4, 1 to 256
channels, 8 to 64 samples, one thread, by the contenders of ``benchmarks/ops.py``.
"""

from __future__ import annotations

import math

from .. import library
from .geometry import Geometry
from .modes import Setting

__all__ = ["is_faster", "serves"]

VECTOR = 16  # values
SHORT, SHORTEST = 8, 4  # places of a row that are covered together with others, with the zeros between them
OUTPUTS = 8  # up to so many, torch's vectors of output channels stay half empty
# Values of x that one output sums, up to which the kernel wins: in rows that no vectors fill (with gradients: True);
TAPS = {True: 600, False: 500}
TAPS_SHORT, TAPS_DILATED = 500, 300  # in short rows of a small kernel with gradients, and of a dilated one;
SMALL = 9  # places of a kernel
TAPS_WHOLE = {8: 1000, 16: 4000}  # in rows of whole vectors, by lanes of a vector;
TAPS_OF_VOLUMES = 900  # in volumes, whose frames of zeros are skipped;
TAPS_SHARED, TAPS_SHARED_SHORT = 300, 220  # where samples share weights, for torch's blocked layouts pay sooner then
LARGE_SET = 1 << 20  # bytes of one set of weights that a stride visits again and again,
LARGE_SAMPLE = 5 << 18  # or of one sample dealt out to phases: they leave the cache


def serves(geometry: Geometry) -> bool:
    """Whether there is a kernel: for every convolution that computes anything; blocks of samples must be equal."""
    equal = geometry.counts is None or len(set(geometry.counts)) == 1
    return equal and min(geometry.B, geometry.Cin, geometry.Cout, *geometry.size, *geometry.out) > 0


def is_faster(geometry: Geometry, setting: Setting) -> bool:
    """Whether a compiled kernel may serve, and is faster than what is chosen without it."""
    if not setting.kernels or setting.portable or setting.transformed or not serves(geometry):
        return False
    if geometry.depthwise:
        return True
    keeps = setting.channels_last and not geometry.per_sample  # torch's own way, unlike every other, keeps that layout
    return not keeps and _is_dense_faster(geometry, setting.training)


def _is_dense_faster(geometry: Geometry, training: bool) -> bool:
    lanes = library.lanes()
    if lanes not in TAPS_WHOLE or geometry.pointwise:
        return False
    if geometry.Cout // geometry.G <= OUTPUTS:
        return True
    taps = geometry.Cin // geometry.G * math.prod(geometry.kernel)
    if geometry.transposed:
        taps //= math.prod(geometry.stride)
    row = geometry.size[-1] if geometry.transposed else geometry.out[-1]
    if geometry.counts is not None:  # torch's operators want copies of x and y, or a call for each block
        return taps <= TAPS[training]
    if not geometry.per_sample or geometry.B == 1:
        return taps <= (TAPS_SHARED if row >= VECTOR else TAPS_SHARED_SHORT) // (2 if geometry.transposed else 1)
    strided = max(geometry.stride) > 1
    if strided and not _stays_in_cache(geometry):
        return False
    if len(geometry.size) == 3:
        return taps <= TAPS_OF_VOLUMES
    if strided or row <= SHORTEST:
        return True
    if row <= SHORT:
        if max(geometry.dilation) > 1:
            return taps <= TAPS_DILATED
        return not training or math.prod(geometry.kernel) > SMALL or taps <= TAPS_SHORT
    return taps <= (TAPS[training] if row % VECTOR else TAPS_WHOLE[lanes])


def _stays_in_cache(geometry: Geometry) -> bool:
    return 4 * geometry.values < LARGE_SET and 4 * geometry.Cin * math.prod(geometry.size) < LARGE_SAMPLE
