"""Convolutions, and transposed ones, with generated weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from .. import functional
from ..errors import ConfigError, ShapeError, did_you_mean
from ..functional import Axes, check_output_padding, check_padding, sizes_of
from ..sites import Order, WeightSpec
from .base import DynamicOp
from .reading import Readable
from .static import filled

__all__ = [
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicConvTranspose1d",
    "DynamicConvTranspose2d",
    "DynamicConvTranspose3d",
]

Size = int | Sequence[int]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def sizes(axes: Axes, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """Write a size as one number for each axis of space, in the words of the functions where it cannot be."""
    listed = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
    return tuple(int(one) for one in sizes_of(axes, name, listed, least, rank))


def padding_of(axes: Axes, padding: Size | str, stride: tuple[int, ...]) -> str | tuple[int, ...]:
    """Write a padding as a word that there is, or as one number for each axis of space."""
    if not isinstance(padding, str):
        return sizes(axes, "padding", padding, len(stride), least=0)
    check_padding(axes, padding, stride)
    return padding


class _Convolution(Readable, DynamicOp):
    """What convolutions share: channels, kernel, groups, bias."""

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def _set(self, channels: tuple[int, int], kernel_size: Size, stride: Size, dilation: Size, groups: int, bias: bool):
        axes, rank = self._axes(), self.rank
        axes.check_whole("groups", groups)
        for name, count in zip(("in_channels", "out_channels"), channels, strict=True):
            axes.check_whole(name, count)
            if count % groups:
                axes.fail(f"`{name}` is {count}, which `groups={groups}` does not divide.")
        self.in_channels, self.out_channels = channels
        self.kernel_size = sizes(axes, "kernel_size", kernel_size, rank)
        self.stride = sizes(axes, "stride", stride, rank)
        self.dilation = sizes(axes, "dilation", dilation, rank)
        self.groups, self.bias = groups, bias

    def _axes(self) -> Axes:
        """Return what tells of wrong arguments in the name of this op."""
        return Axes(type(self).__name__)

    def _specs(
        self, shape: tuple[int, ...], fan_in: float, fan_out: float, transposed: int = 0
    ) -> tuple[WeightSpec, ...]:
        weight = WeightSpec("weight", shape, fan_in, transposed=transposed, fan_out=fan_out, groups=self.groups)
        bias = WeightSpec("bias", (self.out_channels,), fan_in, "bias", fan_out=fan_out)
        return (weight, bias) if self.has_bias else (weight,)

    def _met(self) -> float:
        """Return how many taps meet one place of the larger side, on the mean: one in ``stride`` along each axis."""
        return math.prod(self.kernel_size) / math.prod(self.stride)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class _Conv(_Convolution):
    """Convolution over ``rank`` axes of space, with torch's arguments."""

    takes_factors = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        super().__init__()
        self._set((in_channels, out_channels), kernel_size, stride, dilation, groups, bias)
        if padding_mode not in PADDING_MODES:
            known = did_you_mean(padding_mode, PADDING_MODES)
            raise ConfigError(f"{type(self).__name__}: there is no padding_mode {padding_mode!r}.{known}")
        # by its own values `x` is padded beforehand, with any stride
        self.padding = padding_of(self._axes(), padding, self.stride if padding_mode == "zeros" else (1,) * self.rank)
        self.padding_mode = padding_mode

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        inputs, outputs = self.in_channels // self.groups, self.out_channels // self.groups
        shape = (self.out_channels, inputs, *self.kernel_size)
        return self._specs(shape, inputs * math.prod(self.kernel_size), outputs * self._met())

    def compute(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int] | None = None) -> Tensor:
        padding: str | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            x, padding = self._padded(x), (0,) * self.rank
        options = self.stride, padding, self.dilation, self.groups
        return type(self).function(x, weights["weight"], weights.get("bias"), *options, counts=counts)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        channels = self.in_channels, self.out_channels, self.kernel_size
        options = self.stride, self.padding, self.dilation, self.groups, self.has_bias, self.padding_mode
        return filled(getattr(nn, f"Conv{self.rank}d"), weights, *channels, *options)

    def _padded(self, x: Tensor) -> Tensor:
        """Pad ``x`` by its own values; with ``"same"`` an even kernel gets the odd one at the far end, as in torch."""
        ends = []
        for axis in range(self.rank):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                near, far = total // 2, total - total // 2
            else:
                near = far = int(self.padding[axis])
            most = {"reflect": x.shape[2 + axis] - 1, "circular": x.shape[2 + axis]}.get(self.padding_mode, far)
            if far > most:
                raise ShapeError(
                    f"{self._where()}: padding_mode = {self.padding_mode!r} can pad axis {2 + axis} of x, "
                    f"{tuple(x.shape)}, by {most} at most, but the padding is {far}."
                )
            ends.append((near, far))
        return F.pad(x, [size for pair in reversed(ends) for size in pair], self.padding_mode)

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
        return f"{text}, bias={self.has_bias}" + f", padding_mode={self.padding_mode}" * (self.padding_mode != "zeros")


class DynamicConv1d(_Conv):
    """1-D convolution whose weights are made elsewhere; the arguments are those of :class:`torch.nn.Conv1d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in torch.

    Raises
    ------
    ShapeError, ConfigError
        As of :class:`DynamicConv2d`.

    Examples
    --------
    >>> DynamicConv1d(4, 8, 3).num_generated == 8 * 4 * 3 + 8
    True
    """

    rank, function = 1, functional.conv1d


class DynamicConv2d(_Conv):
    """2-D convolution whose weights are made elsewhere; the arguments are those of :class:`torch.nn.Conv2d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in torch.

    Raises
    ------
    ShapeError
        ``groups`` does not divide the channels, or an argument is no number, or no padding, that there can be.
    ConfigError
        There is no such ``padding_mode``.

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

    rank, function = 2, functional.conv2d


class DynamicConv3d(_Conv):
    """3-D convolution whose weights are made elsewhere; the arguments are those of :class:`torch.nn.Conv3d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in torch.

    Raises
    ------
    ShapeError, ConfigError
        As of :class:`DynamicConv2d`.

    Examples
    --------
    >>> DynamicConv3d(4, 8, 3, groups=4, bias=False).num_generated == 8 * 27
    True
    """

    rank, function = 3, functional.conv3d


class _ConvTranspose(_Convolution):
    """Transposed convolution over ``rank`` axes of space, with torch's arguments."""

    takes_factors = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
    ):
        super().__init__()
        self._set((in_channels, out_channels), kernel_size, stride, dilation, groups, bias)
        axes, rank = self._axes(), self.rank
        self.padding = sizes(axes, "padding", padding, rank, least=0)
        self.output_padding = sizes(axes, "output_padding", output_padding, rank, least=0)
        check_output_padding(axes, self.output_padding, self.stride, self.dilation)

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        inputs, outputs = self.in_channels // self.groups, self.out_channels // self.groups
        shape, fan_out = (self.in_channels, outputs, *self.kernel_size), outputs * math.prod(self.kernel_size)
        return self._specs(shape, inputs * self._met(), fan_out, transposed=self.groups)

    def forward(
        self,
        x: Any = None,
        params: Any = None,
        counts: Sequence[int] | None = None,
        repeats: Order | None = None,
        **options: Any,
    ) -> Tensor:
        """Apply the op, as any; ``op(x, output_size)`` is torch's call: how large the axes of space become."""
        if isinstance(params, (tuple, list)):
            params, options = None, {**options, "output_size": params}
        return super().forward(x, params, counts, repeats, **options)

    def compute(
        self,
        x: Tensor,
        weights: Mapping[str, Tensor],
        counts: Sequence[int] | None = None,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        output_padding = self.output_padding if output_size is None else self._padding_for(x, output_size)
        options = self.stride, self.padding, output_padding, self.groups, self.dilation
        return type(self).function(x, weights["weight"], weights.get("bias"), *options, counts=counts)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        channels = self.in_channels, self.out_channels, self.kernel_size
        options = self.stride, self.padding, self.output_padding, self.groups, self.has_bias, self.dilation
        return filled(getattr(nn, f"ConvTranspose{self.rank}d"), weights, *channels, *options)

    def _padding_for(self, x: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """Return the output padding that makes a size, as torch finds it."""
        sizes = self.stride, self.padding, self.kernel_size, self.rank, self.dilation
        try:
            return tuple(_ConvTransposeNd._output_padding(self, x, list(output_size), *sizes))  # type: ignore[arg-type]
        except ValueError as error:
            raise ShapeError(
                f"{self._where()}: output_size = {tuple(output_size)} for x {tuple(x.shape)}: {error}"
            ) from error

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, padding={self.padding}, output_padding={self.output_padding}"
        return f"{text}, groups={self.groups}, bias={self.has_bias}, dilation={self.dilation}"


class DynamicConvTranspose1d(_ConvTranspose):
    """1-D transposed convolution whose weights are made elsewhere; arguments of :class:`torch.nn.ConvTranspose1d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As in torch.

    Raises
    ------
    ShapeError
        ``groups`` does not divide the channels.

    Examples
    --------
    >>> DynamicConvTranspose1d(4, 8, 2, stride=2).num_generated == 4 * 8 * 2 + 8
    True
    """

    rank, function = 1, functional.conv_transpose1d


class DynamicConvTranspose2d(_ConvTranspose):
    """2-D transposed convolution whose weights are made elsewhere; arguments of :class:`torch.nn.ConvTranspose2d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As in torch.

    Raises
    ------
    ShapeError
        ``groups`` does not divide the channels.

    Examples
    --------
    >>> import torch
    >>> up = DynamicConvTranspose2d(1, 1, 2, stride=2, bias=False)
    >>> up(torch.ones(1, 1, 1, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([[[[1., 2., 1., 2.],
              [3., 4., 3., 4.]]]])
    """

    rank, function = 2, functional.conv_transpose2d


class DynamicConvTranspose3d(_ConvTranspose):
    """3-D transposed convolution whose weights are made elsewhere; arguments of :class:`torch.nn.ConvTranspose3d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As in torch.

    Raises
    ------
    ShapeError
        ``groups`` does not divide the channels.

    Examples
    --------
    >>> DynamicConvTranspose3d(4, 8, 2, stride=2, groups=4).num_generated == 4 * 2 * 8 + 8
    True
    """

    rank, function = 3, functional.conv_transpose3d
