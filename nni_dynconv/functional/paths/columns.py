"""One convolution by matrix products, one for each sample (and group); no size of the batch is used.

What each path takes and returns is said in :mod:`.convolutions`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry, Sizes
from ..planning.modes import is_exporting
from .convolutions import add_bias

__all__ = ["folded", "matmul", "patches", "unfold"]

MOST_SLICES = 256
"""A kernel of longer sides is unfolded in an exported file, too: it has nodes for each slice."""


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A kernel of one tap only mixes channels."""
    if not geometry.per_sample:
        weight = weight.expand(geometry.B, *weight.shape)
    if max(geometry.stride) > 1:
        places: Any = (..., *[slice(None, None, step) for step in geometry.stride])
        x = x[places]
    return add_bias(_mix(x.flatten(2), _forward(weight, geometry), geometry), bias)


def unfold(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The patches of images as columns."""
    if is_exporting():
        return patches(x, weight, bias, geometry)
    columns = F.unfold(x, geometry.kernel, geometry.dilation, geometry.padding, geometry.stride)
    return add_bias(_mix(columns, weight, geometry), bias)


def patches(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The patches over any axes as columns.

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
    return add_bias(_mix(columns, _forward(weight, geometry), geometry), bias)


def folded(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Few outputs, stride 1: mix the channels for each tap first, then add up the taps where they meet.

    The kernel is turned: a place of ``x`` hands its share on to the outputs around it.
    """
    taps = weight.flip(-1, -2).permute(0, 1, 3, 4, 2).flatten(1, 3)  # B Cout*Kh*Kw Cin
    kernel, dilation = geometry.kernel, geometry.dilation
    rows, columns = (d * (k - 1) - p for k, d, p in zip(kernel, dilation, geometry.padding, strict=True))
    shares = torch.bmm(taps, x.flatten(2))
    y = F.fold(shares, geometry.out, kernel, dilation, (rows, columns))
    return add_bias(y.clone(), bias)  # torch's own sits in a storage as large as all shares


def _mix(columns: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Multiply ``B Cin*taps places`` by ``B Cout Cin/G ...``, sample by sample and group by group: ``B Cout *out``."""
    if geometry.G == 1:
        y = torch.bmm(weight.flatten(2), columns)
    else:
        y = torch.matmul(weight.flatten(2).unflatten(1, (geometry.G, -1)), columns.unflatten(1, (geometry.G, -1)))
    return y.reshape(-1, weight.shape[1], *geometry.out)


def _forward(weight: Tensor, geometry: Geometry) -> Tensor:  # B Cin Cout/G ... -> B Cout Cin/G ..., turned
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
    if is_exporting() and sum(kernel) <= MOST_SLICES:
        return _sliced(x, kernel, dilation, stride)
    for axis, (k, d, s) in enumerate(zip(kernel, dilation, stride, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]  # a new last axis of k taps
    places, taps = range(2, 2 + rank), range(2 + rank, 2 + 2 * rank)
    return x.permute(0, 1, *taps, *places).flatten(1, 1 + rank).flatten(2)


def _sliced(x: Tensor, kernel: Sizes, dilation: Sizes, stride: Sizes) -> Tensor:  # as _columns
    """Lay patches out by slices, axis by axis: exporters write unfolding as gathers of single values, 13x slower.

    That takes as many nodes as the sides of a kernel add up to; a slice for each tap took as many as their product.
    """
    for axis, (k, d, s) in enumerate(zip(kernel, dilation, stride, strict=True)):
        n = (x.shape[2 + 2 * axis] - d * (k - 1) - 1) // s * s + 1
        taps = [torch.ops.aten.slice(x, 2 + 2 * axis, d * tap, d * tap + n, s) for tap in range(k)]
        x = torch.stack(taps, 2 + axis) if k > 1 else taps[0].unsqueeze(2 + axis)
    return x.flatten(1, 1 + len(kernel)).flatten(2)
