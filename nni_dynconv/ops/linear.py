"""Linear map with generated weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .. import functional
from ..functional import Axes
from ..sites import WeightSpec
from .base import DynamicOp
from .reading import Readable
from .static import filled

__all__ = ["DynamicLinear"]


class DynamicLinear(Readable, DynamicOp):
    """Linear map whose weights are made elsewhere; the arguments are those of :class:`torch.nn.Linear`.

    Parameters
    ----------
    in_features, out_features, bias
        As in torch.

    Raises
    ------
    ShapeError
        A number of features is no whole number of 1 or more.

    Examples
    --------
    >>> import torch
    >>> linear = DynamicLinear(2, 1)
    >>> linear(torch.tensor([[1.0, 2.0]]), {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([0.5])})
    tensor([[11.5000]])
    """

    takes_factors = True

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        axes = Axes(type(self).__name__)
        axes.check_whole("in_features", in_features)
        axes.check_whole("out_features", out_features)
        self.in_features, self.out_features, self.bias = in_features, out_features, bias

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        inputs, outputs = self.in_features, self.out_features
        weight = WeightSpec("weight", (outputs, inputs), inputs, fan_out=outputs)
        bias = WeightSpec("bias", (outputs,), inputs, "bias", fan_out=outputs)
        return (weight, bias) if self.has_bias else (weight,)

    def compute(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int] | None = None) -> Tensor:
        return functional.linear(x, weights["weight"], weights.get("bias"), counts=counts)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        return filled(nn.Linear, weights, self.in_features, self.out_features, self.has_bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.has_bias}"
