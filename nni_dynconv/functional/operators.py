"""The compiled kernels as an operator that ``torch.compile`` and ``torch.export`` know; eager calls go past it.

They are kernels of the CPU, and the dispatcher refuses tensors of another device.

The dispatcher costs more than a small convolution does, so :mod:`nni_dynconv.functional.compiled` uses this only
while something traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .geometry import Geometry, measure

__all__ = ["convolution_operator"]

DENSE = torch.contiguous_format


def _geometry(x: Tensor, weight: Tensor, options: Sequence[Any]) -> Geometry:
    (sh, sw), (ph, pw), (dh, dw), groups = options
    return measure(x.shape, weight.shape, None, (sh, sw), (ph, pw), (dh, dw), groups)


@torch.library.custom_op("nni_dynconv::convolution", mutates_args=(), device_types="cpu")
def convolution_operator(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Convolution of ``x: B Cin H W`` with ``weight: [B] Cout Cin/G Kh Kw``, float32, of those that kernels serve."""
    geometry = _geometry(x, weight, (stride, padding, dilation, groups))
    return kernels.forward(x.contiguous(), weight.contiguous(), geometry)


@convolution_operator.register_fake
def _(x: Tensor, weight: Tensor, *options: Any) -> Tensor:
    geometry = _geometry(x, weight, options)
    return x.new_empty((geometry.B, geometry.Cout, geometry.Ho, geometry.Wo))


@torch.library.custom_op("nni_dynconv::convolution_backward", mutates_args=(), device_types="cpu")
def backward_operator(
    x: Tensor, weight: Tensor, dy: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> tuple[Tensor, Tensor]:
    """Both gradients of ``convolution``."""
    geometry = _geometry(x, weight, (stride, padding, dilation, groups))
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
    return *backward_operator(*ctx.saved_tensors, dy, *ctx.options), None, None, None, None


convolution_operator.register_autograd(_backward, setup_context=_remember)
