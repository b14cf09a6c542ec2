"""``conv2d_pixels``: each place of the output has a kernel of its own, which the channels of a group share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from .checks import Axes, check_alike, check_tensors
from .paths.compiled import is_watched
from .paths.pixels import Pixels, map_by_torch, mapped
from .planning.compiled import serves
from .planning.geometry import Sizes
from .planning.measuring import measure_convolution, sizes_of
from .planning.modes import setting_of

__all__ = ["conv2d_pixels"]

WHERE = "conv2d_pixels"


def conv2d_pixels(
    x: Tensor,  # B C H W
    weight: Tensor,  # B G*Kh*Kw Ho Wo
    kernel_size: int | Sizes,
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
) -> Tensor:  # B C Ho Wo
    r"""Convolve each channel by kernels that vary from place to place; channels of a group share them.

    .. math:: y_{b,c,p} = \sum_k w_{b,g(c),k,p} \, x_{b,c,sp+dk}, \qquad g(c) = \lfloor cG/C \rfloor

    Nothing is kept for the backward but ``x`` and ``weight``, whatever the size of the kernel.

    Parameters
    ----------
    x : Tensor, shape (B, C, H, W)
    weight : Tensor, shape (B, G*Kh*Kw, Ho, Wo)
        Kernels of the G groups of consecutive channels, one for each place of the output: G = 1, one for all channels;
        G = C, one for each. G follows from the shape.
    kernel_size
        Of the kernels, Kh and Kw: the shape of ``weight`` does not tell.
    stride, padding, dilation
        As in :func:`torch.nn.functional.conv2d`, ``"same"`` and ``"valid"`` among them.

    Returns
    -------
    Tensor, shape (B, C, Ho, Wo)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.
    DtypeError
        If the dtypes differ, outside of autocast.

    References
    ----------
    Bako et al., Kernel-predicting convolutional networks for denoising Monte Carlo renderings, SIGGRAPH 2017;
    Mildenhall et al., Burst denoising with kernel prediction networks, CVPR 2018; Li et al., Involution: Inverting the
    inherence of convolution for visual recognition, CVPR 2021.

    Examples
    --------
    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> left, center = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> conv2d_pixels(x, torch.stack([left, center, 0 * left])[None], (1, 3), padding="same")
    tensor([[[[0., 1.],
              [0., 3.]]]])
    """
    check_tensors(WHERE, x=x, weight=weight)
    if x.dtype != weight.dtype:
        check_alike(WHERE, x, weight)
        common = torch.promote_types(x.dtype, weight.dtype)  # autocast
        x, weight = x.to(common), weight.to(common)
    asked: tuple[Any, ...] = x.shape, weight.shape, kernel_size, stride, padding, dilation
    try:
        pixels = _measure(*asked) if is_compiling() else _measure_once(*asked)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        pixels = _measure(*asked)
    setting = setting_of(x, weight)
    if is_compiling() or setting.transformed or setting.portable or is_watched():
        return map_by_torch(x, weight, pixels)
    compiled = setting.kernels and set(pixels.geometry.stride) == {1} and serves(pixels.geometry)
    return mapped(x, weight, pixels._replace(compiled=compiled))


def _measure(
    x: Sequence[int],
    weight: Sequence[int],
    kernel_size: int | Sizes,
    stride: int | Sizes,
    padding: str | int | Sizes,
    dilation: int | Sizes,
) -> Pixels:
    axes = Axes(WHERE)
    axes.bind("x", x, "B C H W")
    kernel = sizes_of(axes, "kernel_size", kernel_size, 1, 2)
    C, taps = x[1], kernel[0] * kernel[1]
    geometry = measure_convolution(2, x, (C, 1, *kernel), None, stride, padding, dilation, C, where=WHERE)
    if len(weight) == 4 and (weight[1] % taps or not weight[1] or C % (weight[1] // taps)):
        axes.fail(
            f"`weight` {tuple(weight)} has {weight[1]} channels, but needs {taps} (`kernel_size` {kernel}) for each of "
            f"some groups, whose number divides the {C} channels of `x`."
        )
    for name, size in zip(("Ho", "Wo"), geometry.out, strict=True):
        axes.derive(name, size, "the output")
    axes.bind("weight", weight, "B G*Kh*Kw Ho Wo")
    return Pixels(geometry, weight[1] // taps)


_measure_once = lru_cache(maxsize=4096)(_measure)
