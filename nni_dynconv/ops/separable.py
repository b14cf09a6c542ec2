"""The two operators of microsoft/nni issue 2693: ReLU - depthwise (dilated) - pointwise - BatchNorm."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from .. import functional
from ..functional import Axes
from ..sites import WeightSpec
from .base import DynamicOp
from .conv import Size, padding_of, sizes
from .static import filled

__all__ = ["DynamicDilConv", "DynamicSepConv"]

Norm = Callable[[int], nn.Module] | nn.Module


class DynamicSepConv(DynamicOp):
    """ReLU, depthwise convolution, pointwise convolution, normalisation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride
        As in :class:`torch.nn.Conv2d`.
    padding
        ``None`` keeps the size at stride 1, for an odd kernel; ``"same"`` for an even one too.
    dilation
        Of the depthwise convolution; 1 unless told.
    norm
        Makes the normalisation from its number of channels, or is it; ``None`` for none. It is ordinary state, learned
        and not generated: ``num_generated`` does not count it, and in training BatchNorm lets samples meet.

    Raises
    ------
    ShapeError
        An argument is no number, or no padding, that there can be.

    References
    ----------
    Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019. Its separable convolution stands twice in a row;
    this one, as in the issue, once.

    Examples
    --------
    >>> DynamicSepConv(4, 8, 3).num_generated == 4 * 9 + 8 * 4
    True
    """

    default_dilation = 1
    takes_factors = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str | None = None,
        dilation: Size | None = None,
        norm: Norm | None = nn.BatchNorm2d,
    ):
        super().__init__()
        axes = Axes(type(self).__name__)
        axes.check_whole("in_channels", in_channels)
        axes.check_whole("out_channels", out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = sizes(axes, "kernel_size", kernel_size, 2), sizes(axes, "stride", stride, 2)
        self.dilation = sizes(axes, "dilation", self.default_dilation if dilation is None else dilation, 2)
        same = (self.dilation[0] * (self.kernel_size[0] // 2), self.dilation[1] * (self.kernel_size[1] // 2))
        self.padding = same if padding is None else padding_of(axes, padding, self.stride)
        self.norm = _make_norm(norm, out_channels)

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        inputs, outputs, taps = self.in_channels, self.out_channels, math.prod(self.kernel_size)
        met = taps / math.prod(self.stride)  # on the mean
        return (
            WeightSpec("depthwise", (inputs, 1, *self.kernel_size), taps, fan_out=met, groups=inputs),
            WeightSpec("pointwise", (outputs, inputs, 1, 1), inputs, fan_out=outputs),
        )

    def compute(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int] | None = None) -> Tensor:
        options = self.stride, self.padding, self.dilation, self.in_channels
        x = functional.conv2d(x.relu(), weights["depthwise"], None, *options, counts=counts)
        return self.norm(functional.conv2d(x, weights["pointwise"], counts=counts))

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return the layers in their order; the normalisation keeps its name."""
        options = self.kernel_size, self.stride, self.padding, self.dilation, self.in_channels, False
        depthwise, pointwise = ({"weight": weights[name]} for name in ("depthwise", "pointwise"))
        layers = {
            "relu": nn.ReLU(),
            "depthwise": filled(nn.Conv2d, depthwise, self.in_channels, self.in_channels, *options),
            "pointwise": filled(nn.Conv2d, pointwise, self.in_channels, self.out_channels, 1, bias=False),
            "norm": self.norm,
        }
        return nn.Sequential(OrderedDict(layers))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{text}, padding={self.padding}, dilation={self.dilation}"


def _make_norm(norm: Norm | None, channels: int) -> nn.Module:
    if norm is None:
        return nn.Identity()
    return norm if isinstance(norm, nn.Module) else norm(channels)


class DynamicDilConv(DynamicSepConv):
    """:class:`DynamicSepConv` with a dilated depthwise convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, norm
        As of :class:`DynamicSepConv`.
    dilation
        Of the depthwise convolution; 2 unless told.

    Examples
    --------
    >>> DynamicDilConv(4, 8, 3).padding
    (2, 2)
    """

    default_dilation = 2
