"""Convolution by the compiled kernels, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..planning.geometry import Geometry
from ..planning.sets import spread
from . import kernels
from .convolutions import add_bias
from .operators import convolution_operator

__all__ = ["compiled"]


def compiled(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """What a kernel serves, in float32; a bias has the sets of the weight, or one for all."""
    if bias is not None and bias.dim() == 2 and bias.shape[0] > 1 and geometry.counts is not None:
        bias = spread(bias, geometry.counts)
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():  # somebody watches
        return add_bias(convolution_operator(x, weight, *geometry.options, geometry.G), bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return add_bias(Compiled.apply(x, weight, geometry), bias)
    return add_bias(kernels.forward(x.contiguous(), weight.contiguous(), geometry), bias)


class Compiled(torch.autograd.Function):
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
            dx, dw = _gradients(x, weight, dy, ctx.geometry, (wants_x, wants_weight))
        else:
            dx = torch.empty_like(x) if wants_x else None
            dw = torch.empty_like(weight) if wants_weight else None
            kernels.backward(x, weight, dy.contiguous(), dx, dw, ctx.geometry)
        return dx, dw, None


def _gradients(
    x: Tensor, weight: Tensor, dy: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> list[Tensor | None]:
    if geometry.counts is not None:
        block = geometry._replace(B=geometry.counts[0], per_sample=False, counts=None)
        parts = zip(x.split(block.B), weight.unbind(), dy.split(block.B), strict=True)
        found = zip(*[_gradients(*part, block, wanted) for part in parts], strict=True)
        return [
            join(one) if wants else None
            for join, one, wants in zip((torch.cat, torch.stack), found, wanted, strict=True)
        ]
    laid, groups = [x, weight, dy], geometry.G
    if geometry.per_sample:  # the batch laid into the channels
        laid = [x.flatten(0, 1)[None], weight.flatten(0, 1), dy.flatten(0, 1)[None]]
        groups *= geometry.B
    found = torch.ops.aten.convolution_backward(
        laid[2], laid[0], laid[1], None, *geometry.options, groups, [*wanted, False]
    )
    return [one.view_as(like) if wants else None for one, like, wants in zip(found, (x, weight), wanted, strict=False)]
