"""Convolution with generated weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from .. import functional
from ..errors import ShapeError
from ..spec import WeightSpec
from .base import DynamicOp

__all__ = ["DynamicConv2d"]

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """Write a size as ``(height, width)``."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class DynamicConv2d(DynamicOp):
    """2-D convolution whose weights are made elsewhere; the arguments are those of :class:`torch.nn.Conv2d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in torch.

    Raises
    ------
    ShapeError
        ``groups`` does not divide the channels.

    Examples
    --------
    >>> import torch
    >>> conv = DynamicConv2d(1, 1, 3, padding=1, bias=False)
    >>> conv.num_generated
    9
    >>> conv(torch.ones(2, 1, 3, 3), torch.ones(9))[0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"DynamicConv2d: groups = {groups} must divide in_channels = {in_channels} and "
                f"out_channels = {out_channels}."
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = pair(kernel_size), pair(stride), pair(dilation)
        self.padding = padding if isinstance(padding, str) else pair(padding)
        self.groups, self.bias = groups, bias

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        weight = WeightSpec("weight", shape, fan_in)
        return (weight, WeightSpec("bias", (self.out_channels,), fan_in, "bias")) if self.bias else (weight,)

    def compute(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:  # B Cin H W -> B Cout H W
        return functional.conv2d(
            x, weights["weight"], weights.get("bias"), self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{text}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias}"
