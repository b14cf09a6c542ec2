"""A convolution whose weights vary over the image: patches of the output become samples, or groups, of another.

Each tile holds what a patch sees of ``x``, so neighbours overlap, and no patch shows at its edges.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry, Sizes
from ..planning.grids import starts
from .blocks import Call

__all__ = ["tiled"]


def tiled(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``weight: [B] Gh Gw Cout Cin/G Kh Kw``; ``bias: Cout`` or ``[B] Gh Gw Cout``; it computes ``B Cout Ho Wo``.

    Patches of samples that have weights of their own are samples; of those that share a grid of weights, groups.
    """
    P, own = math.prod(geometry.grid), geometry.per_sample
    tiles = _cut(x, geometry)
    weights, groups = (weight.flatten(0, 2), geometry.G) if own else (weight.flatten(0, 2), P * geometry.G)
    options = geometry.stride, (0, 0), geometry.dilation, groups, None
    y = call(2, tiles.flatten(0, 2) if own else tiles.flatten(1, 3), weights, _biases(bias, geometry), options)
    patches = y.unflatten(0, (-1, *geometry.grid)) if own else y.unflatten(1, (*geometry.grid, -1))
    return _joined(patches, geometry.out)


def _biases(bias: Tensor | None, geometry: Geometry) -> Tensor | None:
    """As the convolution of tiles takes it: ``[B*P] Cout``, or for groups ``[B] P*Cout``."""
    if bias is None or (geometry.per_sample and bias.dim() == 1):
        return bias
    if bias.dim() == 1:
        return bias.repeat(math.prod(geometry.grid))
    if geometry.per_sample:
        return bias.expand(geometry.B, *bias.shape[-3:]).flatten(0, 2)
    return bias.flatten(-3)


def _cut(x: Tensor, geometry: Geometry) -> Tensor:  # B Cin H W -> B Gh Gw Cin h w
    if any(geometry.padding):
        x = F.pad(x, [p for p in reversed(geometry.padding) for _ in range(2)])
    for axis in range(2):
        x = _windows(x, 2 + axis, geometry, axis)
    return x.permute(0, 2, 3, 1, 4, 5)


def _windows(x: Tensor, place: int, geometry: Geometry, axis: int) -> Tensor:
    """Windows of an axis, which overlap, as one more axis at the end."""
    size, patches, stride = geometry.out[axis], geometry.grid[axis], geometry.stride[axis]
    longest = -(-size // patches)
    window = (longest - 1) * stride + geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1
    if size % patches == 0:
        return x.unfold(place, window, longest * stride)
    last = x.shape[place] - 1  # a patch that is shorter than the longest has places too many, which nobody reads
    seen = [min(start * stride + i, last) for start in starts(size, patches)[:-1] for i in range(window)]
    return x.index_select(place, torch.tensor(seen, device=x.device)).unflatten(place, (patches, window)).movedim(place + 1, -1)


def _joined(y: Tensor, size: Sizes) -> Tensor:  # B Gh Gw Cout h w -> B Cout Ho Wo
    grid, patch = y.shape[1:3], y.shape[4:]
    y = y.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    for axis in range(2):
        if size[axis] % grid[axis]:
            ends = starts(size[axis], grid[axis])
            kept = [i * patch[axis] + k for i in range(grid[axis]) for k in range(ends[i + 1] - ends[i])]
            y = y.index_select(2 + axis, torch.tensor(kept, device=y.device))
    return y
