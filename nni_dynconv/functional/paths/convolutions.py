"""One convolution by torch's own convolutions, as one call, as one with groups, or one sample after the other.

Each path takes ``x: B Cin ...``, ``weight: [B] Cout Cin/G ...``, transposed ``[B] Cin Cout/G ...``, ``bias: [B] Cout``
or None, and the :class:`~nni_dynconv.functional.planning.geometry.Geometry`, and returns ``B Cout ...``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry

__all__ = ["add_bias", "grouped", "looped", "plain", "single"]

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}  # a sequence is an image of one row
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B Cout ..., [B] Cout -> B Cout ...
    return y if bias is None else y + bias.reshape(*bias.shape, *[1] * (y.dim() - 2))


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One weight for all samples."""
    inner = bias if bias is not None and bias.dim() == 1 else None
    y = _convolve(x, weight, inner, geometry, geometry.G)
    return y if inner is bias else add_bias(y, bias)


def single(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A batch of one sample: its weights are the shared weights."""
    return plain(x, weight.squeeze(0), bias, geometry)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The batch laid into the channels: one convolution with ``B * G`` groups."""
    B, Cin, size, Cout = geometry[:4]
    flat = bias.expand(B, Cout).reshape(-1) if bias is not None else None
    y = _convolve(x.reshape(1, B * Cin, *size), weight.flatten(0, 1), flat, geometry, B * geometry.G)
    return y.view(geometry.output)


def looped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One call a sample."""
    samples = zip(x.split(1), weight.unbind(), strict=True)
    return add_bias(torch.cat([_convolve(one, own, None, geometry, geometry.G) for one, own in samples]), bias)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int) -> Tensor:
    stride, padding, dilation, rank = geometry.stride, geometry.padding, geometry.dilation, len(geometry.kernel)
    if geometry.transposed:
        return TRANSPOSED[rank](x, weight, bias, stride, padding, geometry.extra, groups, dilation)
    return CONVOLUTIONS[rank](x, weight, bias, stride, padding, dilation, groups)
