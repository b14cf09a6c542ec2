"""``conv2d``: one convolution whose weights are shared, or made anew for each sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from . import depthwise, kernels, paths
from .geometry import Geometry, Pair, measure
from .modes import is_portable, is_transformed, wants_kernels
from .planner import Setting, choose

__all__ = ["conv2d"]

PATHS: dict[str, Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]] = {
    "plain": paths.plain,
    "single": paths.single,
    "grouped": paths.grouped,
    "matmul": paths.matmul,
    "unfold": paths.unfold,
    "depthwise": depthwise.depthwise,
    "depthwise_in_chunks": depthwise.depthwise_in_chunks,
    "compiled": depthwise.compiled,
}


def conv2d(
    x: Tensor,  # B Cin H W
    weight: Tensor,  # Cout Cin/G Kh Kw, or B Cout Cin/G Kh Kw
    bias: Tensor | None = None,  # Cout, or B Cout
    stride: int | Pair = 1,
    padding: str | int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:  # B Cout Ho Wo
    r"""Convolve each sample with the shared weights, or with its own.

    .. math:: y_b = x_b \star w_b + c_b, \qquad b = 1, \dots, B

    Values and gradients are those of a loop over the samples with :func:`torch.nn.functional.conv2d`, whatever
    path the planner takes.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, H, W)
    weight : Tensor, shape (Cout, Cin/G, Kh, Kw) or (B, Cout, Cin/G, Kh, Kw)
        Four axes: shared by all samples. Five: one set per sample.
    bias : Tensor, shape (Cout,) or (B, Cout), optional
        Shared or per sample, whatever the weight is.
    stride, padding, dilation, groups
        As in :func:`torch.nn.functional.conv2d`, ``"same"`` and ``"valid"`` among them.

    Returns
    -------
    Tensor, shape (B, Cout, Ho, Wo)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> x = torch.ones(2, 1, 3, 3)
    >>> weight = torch.stack([torch.ones(1, 1, 3, 3), 2 * torch.ones(1, 1, 3, 3)])
    >>> conv2d(x, weight).flatten().tolist()
    [9.0, 18.0]
    """
    shapes = (x.shape, weight.shape, None if bias is None else bias.shape)
    geometry, path = _plan(_setting(x, weight), *shapes, stride, padding, dilation, groups)
    if geometry.extra != (0, 0):
        rows, columns = geometry.extra
        x, geometry = F.pad(x, (0, columns, 0, rows)), geometry.padded()
    return PATHS[path](x, weight, bias, geometry)


def _setting(x: Tensor, weight: Tensor) -> Setting:
    training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    transformed = is_transformed()
    allowed = kernels.loaded() and not transformed and wants_kernels() and not torch.is_autocast_enabled("cpu")
    suits = allowed and _is_plain_float(x) and _is_plain_float(weight)
    return Setting(x.device.type, x.dtype, training, suits, is_portable(), transformed)


def _is_plain_float(tensor: Tensor) -> bool:
    """Whether the tensor is what the compiled kernels read: float32 in this machine's memory, no subclass."""
    return type(tensor) in (Tensor, Parameter) and tensor.dtype == torch.float32 and tensor.is_cpu


def _plan(setting: Setting, *problem: Any) -> tuple[Geometry, str]:
    if torch.compiler.is_compiling():
        return _plan_anew(setting, *problem)
    try:
        return _plan_once(setting, *problem)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _plan_anew(setting, *problem)


def _plan_anew(setting: Setting, *problem: Any) -> tuple[Geometry, str]:
    geometry = measure(*problem)
    return geometry, choose(geometry, setting).path


_plan_once = lru_cache(maxsize=4096)(_plan_anew)
