"""One convolution, or transposed convolution, over 1, 2 or 3 axes of space, by torch's operators or a compiled kernel.

Two axes without transposition, and one, go another way: through ``conv2d`` and its paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import GeometryNd, Sizes
from ..planning.planner import DENSE, GROUPED, LARGE_SAMPLE, VECTOR, Choice, Setting, choose_anywhere, is_compiled
from . import kernels
from .compiled import compiled
from .planar import add_bias, mix

__all__ = ["PATHS", "choose_nd", "possible_nd"]

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
# Transposed convolutions of images with a stride: all samples as one call with groups take longer than a call for each
# where all of these hold (CPU time on AVX-512, kernels of 2 to 5, 8 and 32 samples; `transposed` in benchmarks/ops.py).
LARGE = 4 << 20  # bytes of the output, which leave the cache,
LARGE_FORWARD = 2 << 20  # or of a forward without gradients,
# LARGE_SAMPLE of each sample's part, and VECTOR channels, in and out; with just so many in, odd kernels without output
# padding are fast with groups.


def choose_nd(geometry: GeometryNd, setting: Setting) -> Choice:
    """Pick the path of one convolution whose weights are shared or per sample."""
    if is_compiled(geometry, setting):
        return DENSE
    found = choose_anywhere(geometry, setting, columns="patches")
    if found is None and _loops(geometry, setting):
        return Choice("looped", "transposed and large: one sample at a time stays in the cache")
    return found or GROUPED


def possible_nd(geometry: GeometryNd, setting: Setting) -> list[str]:
    """List every path that can compute one convolution."""
    able = ["compiled"] if setting.kernels and kernels.serves(geometry) else []
    if not geometry.per_sample:
        mixes = geometry.pointwise and geometry.G == 1
        return ["plain", *(["matmul"] if mixes else []), *able]
    several = ["grouped"] if torch.compiler.is_compiling() else ["grouped", "looped"]  # a graph is for any B
    paths = ["single"] if geometry.B == 1 else several
    return [*paths, "patches", *(["matmul"] if geometry.pointwise else []), *able]


def _loops(geometry: GeometryNd, setting: Setting) -> bool:
    """Whether one call a sample is faster than groups; only transposed convolutions of images were measured."""
    if not geometry.transposed or geometry.G > 1 or len(geometry.size) != 2 or set(geometry.stride) == {1}:
        return False
    if setting.device != "cpu" or setting.transformed or torch.compiler.is_compiling():
        return False
    sample = geometry.Cout * math.prod(geometry.out) * setting.dtype.itemsize
    large = geometry.B * sample >= (LARGE if setting.training else LARGE_FORWARD)
    even = any(geometry.extra) or any(k % 2 == 0 for k in geometry.kernel)
    wide = geometry.Cout >= VECTOR and (geometry.Cin > VECTOR or (geometry.Cin == VECTOR and even))
    return large and sample >= LARGE_SAMPLE and wide


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """One weight for all samples: torch's convolution."""
    inner = bias if bias is not None and bias.dim() == 1 else None
    y = _torchs(x, weight, inner, geometry, geometry.G)
    return y if inner is bias else add_bias(y, bias)


def single(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """A batch of one sample: its weights are the shared weights."""
    return plain(x, weight.squeeze(0), bias, geometry)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """The batch laid into the channels: one convolution with ``B * G`` groups."""
    B, Cout = geometry.B, geometry.Cout
    flat = bias.expand(B, Cout).reshape(-1) if bias is not None else None
    y = _torchs(x.flatten(0, 1).unsqueeze(0), weight.flatten(0, 1), flat, geometry, B * geometry.G)
    return y.view(B, Cout, *geometry.out)


def looped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """One call a sample."""
    samples = zip(x.split(1), weight.unbind(), strict=True)
    return add_bias(torch.cat([_torchs(one, own, None, geometry, geometry.G) for one, own in samples]), bias)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """A kernel of one tap: one matrix product per sample (and group)."""
    if not geometry.per_sample:
        weight = weight.expand(geometry.B, *weight.shape)
    places: Any = (..., *[slice(None, None, step) for step in geometry.stride])
    x = x[places]
    return add_bias(mix(x.flatten(2), _forward(weight, geometry), geometry.G, geometry.out), bias)


def patches(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd) -> Tensor:
    """The patches as columns, then one matrix product per sample (and group); no size of the batch is used.

    A transposed convolution is an ordinary one, with the kernel turned, of an input with zeros put between its values.
    """
    near, far, stride = geometry.padding, geometry.padding, geometry.stride
    if geometry.transposed:
        x = _insert_zeros(x, stride)
        spans = [d * (k - 1) for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
        near = tuple(span - p for span, p in zip(spans, geometry.padding, strict=True))
        far, stride = tuple(p + e for p, e in zip(near, geometry.extra, strict=True)), (1,) * len(near)
    padded = F.pad(x, [size for pair in zip(reversed(near), reversed(far), strict=True) for size in pair])
    columns = _columns(padded, geometry.kernel, geometry.dilation, stride)
    return add_bias(mix(columns, _forward(weight, geometry), geometry.G, geometry.out), bias)


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor | None, Any], Tensor]] = {
    "plain": plain,
    "single": single,
    "grouped": grouped,
    "looped": looped,
    "matmul": matmul,
    "patches": patches,
    "compiled": compiled,
}


def _torchs(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd, groups: int) -> Tensor:
    rank, stride, padding, dilation = len(geometry.size), geometry.stride, geometry.padding, geometry.dilation
    if geometry.transposed:
        return TRANSPOSED[rank](x, weight, bias, stride, padding, geometry.extra, groups, dilation)
    return CONVOLUTIONS[rank](x, weight, bias, stride, padding, dilation, groups)


def _forward(weight: Tensor, geometry: GeometryNd) -> Tensor:  # B Cin Cout/G ... -> B Cout Cin/G ..., turned
    if not geometry.transposed:
        return weight
    turned = weight.flip(tuple(range(3, weight.dim())))
    return turned.unflatten(1, (geometry.G, -1)).transpose(2, 3).flatten(1, 2)


def _insert_zeros(x: Tensor, stride: Sizes) -> Tensor:  # B Cin n ... -> B Cin (n - 1) * stride + 1 ...
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            zeros = [torch.zeros_like(x)] * (step - 1)
            x = torch.stack([x, *zeros], axis + 1).flatten(axis, axis + 1)
            x = x.narrow(axis, 0, x.shape[axis] - step + 1)
    return x


def _columns(x: Tensor, kernel: Sizes, dilation: Sizes, stride: Sizes) -> Tensor:  # -> B Cin*taps places
    rank = len(kernel)
    for axis, (k, d, s) in enumerate(zip(kernel, dilation, stride, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]  # a new last axis of k taps
    places, taps = range(2, 2 + rank), range(2 + rank, 2 + 2 * rank)
    return x.permute(0, 1, *taps, *places).flatten(1, 1 + rank).flatten(2)
