"""Convolution by kernels that vary from place to place, tap by tap: three maps, each the gradient of the others.

Each takes two tensors and multiplies what stands at the same place: ``x`` seen by a tap, ``weight``, and ``dy``. No
column of patches is laid out, and none is kept for the backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry, Sizes
from ..planning.modes import is_transformed
from . import kernels

__all__ = ["Pixels", "map_by_torch", "mapped"]


class Pixels(NamedTuple):
    """What a call is asked."""

    geometry: Geometry  # of the depthwise convolution of the same sizes
    groups: int  # of channels that share kernels
    compiled: bool = False  # by the kernels of `csrc/`, which know stride 1


def mapped(x: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
    """``x: B C H W``, ``weight: B G*Kh*Kw Ho Wo`` -> ``B C Ho Wo``."""
    return _Mapped.apply(x, weight, pixels)


def map_by_torch(x: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
    """The same by operators that whoever traces, exports or transforms knows."""
    own, y = _grouped(weight, pixels.groups), None
    for tap, seen in enumerate(_seen(_grouped(_padded(x, pixels), pixels.groups), pixels)):
        share = own[:, :, tap, None]
        y = seen * share if y is None else torch.addcmul(y, seen, share)
    return _ungrouped(y)


def _grouped(x: Tensor, groups: int) -> Tensor:  # B C H W -> B G C/G H W
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _ungrouped(x: Any) -> Tensor:  # B G C/G H W -> B C H W; no `flatten`, which a batch of gradients does not know
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def _padded(x: Tensor, pixels: Pixels) -> Tensor:
    geometry = pixels.geometry
    ends = zip(reversed(geometry.padding), reversed(geometry.extra), strict=True)
    sides = [side for padding, extra in ends for side in (padding, padding + extra)]
    return F.pad(x, sides) if any(sides) else x


def _seen(x: Tensor, pixels: Pixels) -> Iterator[Tensor]:  # ... H W, with its padding -> ... Ho Wo, for each tap
    """What of ``x`` each tap sees, as views."""
    geometry = pixels.geometry
    (Kh, Kw), (sh, sw), (dh, dw), (Ho, Wo) = geometry.kernel, geometry.stride, geometry.dilation, geometry.out
    for i in range(Kh):
        for j in range(Kw):
            seen = x.narrow(-2, i * dh, (Ho - 1) * sh + 1).narrow(-1, j * dw, (Wo - 1) * sw + 1)
            yield seen if sh == sw == 1 else seen[..., ::sh, ::sw]


def _compiled(which: str, one: Tensor, other: Tensor, shape: Sizes, pixels: Pixels) -> Tensor:
    one, other = one.contiguous().resolve_neg(), other.contiguous().resolve_neg()
    return kernels.pixels(which, one, other, shape, pixels.geometry, pixels.groups)


def _map(x: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
    if pixels.compiled:
        return _compiled("map", x, weight, pixels.geometry.output, pixels)
    own = _grouped(weight, pixels.groups)
    y = None
    for tap, seen in enumerate(_seen(_grouped(_padded(x, pixels), pixels.groups), pixels)):
        share = own[:, :, tap, None]
        y = seen * share if y is None else y.addcmul_(seen, share)
    return _ungrouped(y)


def _spread(dy: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
    if pixels.compiled:
        return _compiled("spread", dy, weight, (*dy.shape[:2], *pixels.geometry.size), pixels)
    geometry, own = pixels.geometry, _grouped(weight, pixels.groups)
    size = [n + 2 * p + e for n, p, e in zip(geometry.size, geometry.padding, geometry.extra, strict=True)]
    pulls = _grouped(dy, pixels.groups)
    dx = pulls.new_zeros(*pulls.shape[:3], *size)
    for tap, seen in enumerate(_seen(dx, pixels)):
        seen.addcmul_(pulls, own[:, :, tap, None])
    (top, left), (H, W) = geometry.padding, geometry.size
    return _ungrouped(dx).narrow(2, top, H).narrow(3, left, W).contiguous()


def _correlate(x: Tensor, dy: Tensor, pixels: Pixels) -> Tensor:
    if pixels.compiled:
        taps = math.prod(pixels.geometry.kernel)
        return _compiled("correlate", x, dy, (x.shape[0], pixels.groups * taps, *dy.shape[2:]), pixels)
    pulls = _grouped(dy, pixels.groups)
    seen = _seen(_grouped(_padded(x, pixels), pixels.groups), pixels)
    return _ungrouped(torch.stack([(one * pulls).sum(2) for one in seen], 2))


class _Mapped(torch.autograd.Function):
    """Of ``x`` and ``weight``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pixels = pixels
        return _map(x, weight, pixels)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        dx = _of(_Spread, dy, weight, ctx.pixels) if wants[0] else None
        return dx, _of(_Correlated, x, dy, ctx.pixels) if wants[1] else None, None


class _Spread(torch.autograd.Function):
    """The gradient of ``x``, of ``dy`` and ``weight``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, weight: Tensor, pixels: Pixels) -> Tensor:
        ctx.save_for_backward(dy, weight)
        ctx.pixels = pixels
        return _spread(dy, weight, pixels)

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        dy, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        of_dy = _of(_Mapped, pull, weight, ctx.pixels) if wants[0] else None
        return of_dy, _of(_Correlated, pull, dy, ctx.pixels) if wants[1] else None, None


class _Correlated(torch.autograd.Function):
    """The gradient of ``weight``, of ``x`` and ``dy``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor, pixels: Pixels) -> Tensor:
        ctx.save_for_backward(x, dy)
        ctx.pixels = pixels
        return _correlate(x, dy, pixels)

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, dy = ctx.saved_tensors
        wants = ctx.needs_input_grad
        of_x = _of(_Spread, dy, pull, ctx.pixels) if wants[0] else None
        return of_x, _of(_Mapped, x, pull, ctx.pixels) if wants[1] else None, None


RAW = {_Mapped: _map, _Spread: _spread, _Correlated: _correlate}


def _of(which: Any, one: Tensor, other: Tensor, pixels: Pixels) -> Tensor:
    """One of the maps; of a batch of gradients by torch's operators, which see through it."""
    if not torch.is_grad_enabled() and torch._C._has_storage(one):
        return RAW[which](one, other, pixels)
    if is_transformed() or not torch._C._has_storage(one):
        return RAW[which](one, other, pixels._replace(compiled=False))
    return which.apply(one, other, pixels)
