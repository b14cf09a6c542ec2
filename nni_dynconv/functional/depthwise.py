r"""Depthwise convolution with a backward of its own: by torch's operators, or by the compiled kernels.

torch's depthwise backward on a CPU is many times slower than its forward. Both gradients are depthwise convolutions
too, which is what :class:`TorchDepthwise` uses:

.. math:: \bar x = \bar y \star \mathrm{flip}(w), \qquad \bar w = x \star \bar y \text{ (stride and dilation swapped)}
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .geometry import Geometry
from .operators import depthwise_operator
from .paths import add_bias, grouped, plain

__all__ = ["compiled", "depthwise", "depthwise_in_chunks"]

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


def compiled(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Any stride, shared or per-sample weights, float32, by the compiled kernels."""
    if torch.compiler.is_compiling():
        return add_bias(depthwise_operator(x, weight, geometry.stride, geometry.padding, geometry.dilation), bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return add_bias(CompiledDepthwise.apply(x, weight, geometry), bias)
    return add_bias(kernels.forward(x.contiguous(), weight.contiguous(), geometry), bias)


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
    (dh, dw), (ph, pw) = geometry.dilation, geometry.padding
    padding = (dh * (geometry.Kh - 1) - ph, dw * (geometry.Kw - 1) - pw)
    turned = geometry._replace(H=geometry.Ho, W=geometry.Wo, Ho=geometry.H, Wo=geometry.W, padding=padding)
    return grouped(dy, weight.flip(-1, -2), None, turned)


def _weight_gradient(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:  # B C H W, B C Ho Wo -> 1 B*C Kh Kw
    planes = geometry.B * geometry.Cin
    x, dy = x.reshape(1, planes, *x.shape[2:]), dy.reshape(planes, 1, *dy.shape[2:])
    return F.conv2d(x, dy, None, geometry.dilation, geometry.padding, geometry.stride, planes)


class CompiledDepthwise(torch.autograd.Function):
    """Forward and backward by the compiled kernels; a second backward by torch's operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return kernels.forward(x, weight, geometry)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this backward
            dx, dw = _gradients(x, weight, dy, ctx.geometry, wants_x, wants_weight)
        else:
            dx = torch.empty_like(x) if wants_x else None
            dw = torch.empty_like(weight) if wants_weight else None
            kernels.backward(x, weight, dy.contiguous(), dx, dw, ctx.geometry)
        return dx, dw, None


def _gradients(
    x: Tensor, weight: Tensor, dy: Tensor, geometry: Geometry, wants_x: bool, wants_weight: bool
) -> list[Tensor | None]:
    wanted = [one for one, wants in ((x, wants_x), (weight, wants_weight)) if wants]
    y = (grouped if geometry.per_sample else plain)(x, weight, None, geometry)
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if wants else None for wants in (wants_x, wants_weight)]
