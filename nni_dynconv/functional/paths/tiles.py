"""A convolution whose weights vary over the image: patches of the output become samples, or groups, of another.

Each tile holds what a patch sees of ``x``, so neighbours overlap, and no patch shows at its edges.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry, Sizes
from ..planning.grids import starts
from .blocks import Call

__all__ = ["tiled", "tiled_by_torch"]


def tiled(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Patches of one size, with gradients: ``x`` is cut, and gradients put together, by copies of whole blocks."""
    return _convolve(call, Cut.apply(x, Tiles.of(geometry)), weight, bias, geometry)


def tiled_by_torch(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``weight: [B] Gh Gw Cout Cin/G Kh Kw``; ``bias: Cout`` or ``[B] Gh Gw Cout``; it computes ``B Cout Ho Wo``."""
    return _convolve(call, _cut(x, geometry), weight, bias, geometry)


def _convolve(call: Call, tiles: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Patches of samples with weights of their own are samples; of those that share a grid of weights, groups."""
    own, groups = geometry.per_sample, geometry.G
    if not own:
        groups *= math.prod(geometry.grid)
    options = geometry.stride, (0, 0), geometry.dilation, groups, None
    laid = tiles.flatten(0, 2) if own else tiles.flatten(1, 3)
    y = call(2, laid, weight.flatten(0, 2), _biases(bias, geometry), options)
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
    window = _seen(longest, axis, geometry)
    if size % patches == 0:
        return x.unfold(place, window, longest * stride)
    last = x.shape[place] - 1  # a patch that is shorter than the longest has places too many, which nobody reads
    seen = [min(start * stride + i, last) for start in starts(size, patches)[:-1] for i in range(window)]
    return (
        x.index_select(place, torch.tensor(seen, device=x.device))
        .unflatten(place, (patches, window))
        .movedim(place + 1, -1)
    )


def _seen(places: int, axis: int, geometry: Geometry) -> int:
    """How many places of ``x`` so many of the output see along an axis."""
    return (places - 1) * geometry.stride[axis] + geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1


def _joined(y: Tensor, size: Sizes) -> Tensor:  # B Gh Gw Cout h w -> B Cout Ho Wo
    grid, patch = y.shape[1:3], y.shape[4:]
    y = y.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    for axis in range(2):
        if size[axis] % grid[axis]:
            ends = starts(size[axis], grid[axis])
            kept = [i * patch[axis] + k for i in range(grid[axis]) for k in range(ends[i + 1] - ends[i])]
            y = y.index_select(2 + axis, torch.tensor(kept, device=y.device))
    return y


class Tiles(NamedTuple):
    """Windows of one size, at equal steps, over an image with zeros around it; of each axis of space."""

    size: Sizes  # of the image
    padding: Sizes
    grid: Sizes
    window: Sizes
    step: Sizes

    @staticmethod
    def of(geometry: Geometry) -> Tiles:
        """What the patches of the output see."""
        patch = [n // many for n, many in zip(geometry.out, geometry.grid, strict=True)]
        step = tuple(n * s for n, s in zip(patch, geometry.stride, strict=True))
        window = tuple(_seen(n, axis, geometry) for axis, n in enumerate(patch))
        return Tiles(geometry.size, geometry.padding, geometry.grid, window, step)


def _take(x: Tensor, tiles: Tiles) -> Tensor:  # B C H W -> B Gh Gw C h w
    if any(tiles.padding):
        x = F.pad(x, [p for p in reversed(tiles.padding) for _ in range(2)])
    for axis in range(2):
        x = x.unfold(2 + axis, tiles.window[axis], tiles.step[axis])
    return x.permute(0, 2, 3, 1, 4, 5).contiguous()


def _put(tiles: Tensor, laid: Tiles) -> Tensor:  # B Gh Gw C h w -> B C H W, sums where windows overlap
    reach = [-(-window // step) for window, step in zip(laid.window, laid.step, strict=True)]
    ends = [n + 2 * p for n, p in zip(laid.size, laid.padding, strict=True)]
    many = [max(n + r - 1, -(-e // s)) for n, r, e, s in zip(laid.grid, reach, ends, laid.step, strict=True)]
    (Gh, Gw), (down, right), (h, w) = laid.grid, laid.step, laid.window
    put = tiles.new_zeros(tiles.shape[0], tiles.shape[3], many[0], down, many[1], right)
    parts = tiles.permute(0, 3, 1, 4, 2, 5)  # B C Gh h Gw w
    for i in range(reach[0]):
        for j in range(reach[1]):
            rows, columns = min(down, h - i * down), min(right, w - j * right)
            part = parts.narrow(3, i * down, rows).narrow(5, j * right, columns)
            put.narrow(2, i, Gh).narrow(3, 0, rows).narrow(4, j, Gw).narrow(5, 0, columns).add_(part)
    whole = put.reshape(*put.shape[:2], many[0] * down, many[1] * right)
    return whole.narrow(2, laid.padding[0], laid.size[0]).narrow(3, laid.padding[1], laid.size[1]).contiguous()


class Cut(torch.autograd.Function):
    """Windows of an image; torch's own gradient of them adds value by value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return _take(x, tiles)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return Put.apply(dy, ctx.tiles), None


class Put(torch.autograd.Function):
    """Its gradient."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, tiles: Tiles) -> Tensor:
        ctx.tiles = tiles
        return _put(dy, tiles)

    @staticmethod
    def backward(ctx: Any, d2: Tensor) -> tuple[Tensor, None]:
        return Cut.apply(d2, ctx.tiles), None
