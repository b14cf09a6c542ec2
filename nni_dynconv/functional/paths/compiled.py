"""Convolution by the compiled kernels, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..planning.geometry import Geometry
from ..planning.sets import spread
from . import kernels
from .convolutions import add_bias
from .operators import backward_operator, convolution_operator

__all__ = ["compiled", "is_watched"]


def compiled(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """What a kernel serves, in float32; a bias has the sets of the weight, or one for all."""
    if bias is not None and bias.dim() == 2 and bias.shape[0] > 1 and geometry.counts is not None:
        bias = spread(bias, geometry.counts)
    x, weight = _readable(x), _readable(weight)
    if torch.compiler.is_compiling():
        y = convolution_operator(x, weight, *geometry.options, geometry.G)
    elif torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y = Compiled.apply(x, weight, geometry)
    else:
        y = _forward(x, weight, geometry)
    return add_bias(y, bias)


def _readable(one: Tensor) -> Tensor:
    """As a kernel reads it. A copy belongs to the graph, by which a second backward finds the way to what it is of."""
    return one.contiguous().resolve_neg()


def is_watched() -> bool:
    """Whether somebody counts or traces what is dispatched, which eager calls of the kernels go past."""
    return bool(torch._C._len_torch_dispatch_stack())


def _forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    if is_watched():
        return convolution_operator(x, weight, *geometry.options, geometry.G)
    return kernels.forward(x, weight, geometry)


class Compiled(torch.autograd.Function):
    """Forward and backward by the compiled kernels; a second backward by torch's operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _forward(x, weight, geometry)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        if torch.is_grad_enabled() or not torch._C._has_storage(dy):  # create_graph=True, or a batch of gradients
            dx, dw = _gradients(x, weight, dy, ctx.geometry, (wants_x, wants_weight))
        elif is_watched():
            dx, dw = backward_operator(x, weight, _readable(dy), *ctx.geometry.options, ctx.geometry.G)
        else:
            dx = torch.empty_like(x) if wants_x else None
            dw = torch.empty_like(weight) if wants_weight else None
            kernels.backward(x, weight, _readable(dy), dx, dw, ctx.geometry)
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
        laid = [_side_by_side(x), weight.flatten(0, 1), _side_by_side(dy)]
        groups *= geometry.B
    found = torch.ops.aten.convolution_backward(
        laid[2], laid[0], laid[1], None, *geometry.options, groups, [*wanted, False]
    )
    return [one.view_as(like) if wants else None for one, like, wants in zip(found, (x, weight), wanted, strict=False)]


def _side_by_side(x: Tensor) -> Tensor:  # B C ... -> 1 B*C ...
    return x.reshape(1, x.shape[0] * x.shape[1], *x.shape[2:])
