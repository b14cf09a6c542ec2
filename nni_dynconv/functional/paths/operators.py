"""The compiled kernels as an operator that ``torch.compile`` and ``torch.export`` know; eager calls go past it.

They are kernels of the CPU, and the dispatcher refuses tensors of another device.

The dispatcher costs more than a small convolution does, so `compiled.py` uses this only
while something traces, or watches what is dispatched, as torch's counter of FLOPs does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..planning.geometry import Geometry
from ..planning.measuring import measure
from . import kernels

__all__ = ["convolution_operator"]

DENSE = torch.contiguous_format


def _measure(x: Sequence[int], weight: Sequence[int], options: Sequence[Any]) -> Geometry:
    stride, padding, dilation, transposed, output_padding, groups = options
    shapes = x, weight, None
    if transposed:
        return measure(-len(stride), *shapes, stride, padding, output_padding, groups, dilation)
    return measure(len(stride), *shapes, stride, padding, dilation, groups)


@torch.library.custom_op("nni_dynconv::convolution", mutates_args=(), device_types="cpu")
def convolution_operator(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """Convolution as ``aten::convolution``, float32, of those that kernels serve; weights may be per sample."""
    geometry = _measure(x.shape, weight.shape, (stride, padding, dilation, transposed, output_padding, groups))
    return kernels.forward(x.contiguous(), weight.contiguous(), geometry)


@convolution_operator.register_fake
def _(x: Tensor, weight: Tensor, *options: Any) -> Tensor:
    geometry = _measure(x.shape, weight.shape, options)
    return x.new_empty(geometry.output)


@torch.library.custom_op("nni_dynconv::convolution_backward", mutates_args=(), device_types="cpu")
def backward_operator(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Both gradients of ``convolution``."""
    geometry = _measure(x.shape, weight.shape, (stride, padding, dilation, transposed, output_padding, groups))
    dx, dw = torch.empty_like(x, memory_format=DENSE), torch.empty_like(weight, memory_format=DENSE)
    kernels.backward(x.contiguous(), weight.contiguous(), dy.contiguous(), dx, dw, geometry)
    return dx, dw


@backward_operator.register_fake
def _(x: Tensor, weight: Tensor, dy: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=DENSE), torch.empty_like(weight, memory_format=DENSE)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return *backward_operator(*ctx.saved_tensors, dy, *ctx.options), None, None, None, None, None, None


convolution_operator.register_autograd(_backward, setup_context=_remember)


@register_flop_formula(torch.ops.nni_dynconv.convolution)
def _flops(x: Sequence[int], weight: Sequence[int], *options: Any, **_: Any) -> int:
    return 2 * _measure(x, weight, options).multiply_adds


@register_flop_formula(torch.ops.nni_dynconv.convolution_backward)
def _backward_flops(x: Sequence[int], weight: Sequence[int], dy: Sequence[int], *options: Any, **_: Any) -> int:
    return 2 * _flops(x, weight, *options)
