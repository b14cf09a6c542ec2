r"""Depthwise convolution by torch's operators, with a backward of its own.

torch's depthwise backward on a CPU is many times slower than its forward. Both gradients are depthwise convolutions
too, which is what :class:`TorchDepthwise` uses:

.. math:: \bar x = \bar y \star \mathrm{flip}(w), \qquad \bar w = x \star \bar y \text{ (stride and dilation swapped)}
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry
from .convolutions import add_bias, grouped

__all__ = ["depthwise", "depthwise_in_chunks"]

CHUNK = 4 << 20  # bytes of x in a chunk of samples: its output and copies find room in what the one before has freed


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Stride 1, per-sample weights, by torch's operators."""
    return add_bias(TorchDepthwise.apply(*_as_autocast(x, weight), geometry), bias)


def depthwise_in_chunks(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The same for a few samples at a time, where whole tensors would be paid for page by page."""
    x, weight = _as_autocast(x, weight)
    some = max(1, CHUNK * geometry.B // (x.numel() * x.element_size()))
    parts = []
    for one, own in zip(x.split(some), weight.split(some), strict=True):
        parts.append(TorchDepthwise.apply(one, own, geometry._replace(B=one.shape[0])))
    return add_bias(torch.cat(parts), bias)


def _as_autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cast as autocast would: it does not reach into a backward, where both must have the type of ``dy``."""
    device = x.device.type
    if torch.float64 in (x.dtype, weight.dtype):  # autocast leaves it alone
        return x, weight
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x, weight
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), weight.to(dtype)


class TorchDepthwise(torch.autograd.Function):
    """Forward and both gradients as grouped convolutions, which oneDNN does fast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return grouped(x, weight, None, geometry)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        dx = _input_gradient(dy, weight, ctx.geometry) if wants_x else None
        dw = _weight_gradient(x, dy, ctx.geometry).view(weight.shape) if wants_weight else None
        return dx, dw, None


def _input_gradient(dy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:  # B C Ho Wo, B C 1 Kh Kw -> B C H W
    pads = zip(geometry.dilation, geometry.kernel, geometry.padding, strict=True)
    padding = tuple(d * (k - 1) - p for d, k, p in pads)
    turned = geometry._replace(size=geometry.out, out=geometry.size, padding=padding)
    return grouped(dy, weight.flip(-1, -2), None, turned)


def _weight_gradient(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:  # B C H W, B C Ho Wo -> 1 B*C Kh Kw
    planes = geometry.B * geometry.Cin
    x, dy = x.reshape(1, planes, *x.shape[2:]), dy.reshape(planes, 1, *dy.shape[2:])
    return F.conv2d(x, dy, None, geometry.dilation, geometry.padding, geometry.stride, planes)
