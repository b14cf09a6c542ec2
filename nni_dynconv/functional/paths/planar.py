"""The ways to compute one convolution from torch's own operators; which one runs is the planner's choice.

Each takes ``x: B Cin H W``, ``weight: [B] Cout Cin/G Kh Kw``, ``bias: [B] Cout`` or None, and the
:class:`~nni_dynconv.functional.planning.geometry.Geometry`, and returns ``B Cout Ho Wo``. ``padding="same"`` of an even
kernel has been cut down to symmetric padding before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry

__all__ = ["add_bias", "folded", "grouped", "looped", "matmul", "mix", "plain", "single", "unfold"]


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B Cout ..., [B] Cout -> B Cout ...
    return y if bias is None else y + bias.reshape(*bias.shape, *[1] * (y.dim() - 2))


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One weight for all samples: torch's convolution."""
    inner = bias if bias is not None and bias.dim() == 1 else None
    y = F.conv2d(x, weight, inner, geometry.stride, geometry.padding, geometry.dilation, geometry.G)
    return y if inner is bias else add_bias(y, bias)


def single(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A batch of one sample: its weights are the shared weights."""
    return plain(x, weight.squeeze(0), bias, geometry)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The batch laid into the channels: one convolution with ``B * G`` groups."""
    B, Cin, H, W, Cout = geometry[:5]
    flat = bias.expand(B, Cout).reshape(-1) if bias is not None else None
    x = x.reshape(1, B * Cin, H, W)
    weight = weight.reshape(B * Cout, Cin // geometry.G, *geometry.kernel)
    y = F.conv2d(x, weight, flat, geometry.stride, geometry.padding, geometry.dilation, B * geometry.G)
    return y.view(geometry.output)


def looped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One call a sample."""
    options = geometry.stride, geometry.padding, geometry.dilation, geometry.G
    samples = zip(x.split(1), weight.unbind(), strict=True)
    return add_bias(torch.cat([F.conv2d(one, own, None, *options) for one, own in samples]), bias)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A 1x1 kernel only mixes channels: one matrix product per sample (and group)."""
    if not geometry.per_sample:
        weight = weight.expand(geometry.B, *weight.shape)
    sh, sw = geometry.stride
    if sh > 1 or sw > 1:
        x = x[:, :, ::sh, ::sw]
    return add_bias(mix(x.flatten(2), weight, geometry.G, geometry.out), bias)


def unfold(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The patches as columns, then one matrix product per sample (and group); no size of the batch is used."""
    kernel = geometry.kernel
    columns = F.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)
    return add_bias(mix(columns, weight, geometry.G, geometry.out), bias)


def folded(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Few outputs, stride 1: mix the channels for each tap first, then add up the taps where they meet.

    The kernel is turned: a place of ``x`` hands its share on to the outputs around it.
    """
    taps = weight.flip(-1, -2).permute(0, 1, 3, 4, 2).flatten(1, 3)  # B Cout*Kh*Kw Cin
    kernel, dilation = geometry.kernel, geometry.dilation
    rows, columns = (d * (k - 1) - p for k, d, p in zip(kernel, dilation, geometry.padding, strict=True))
    shares = torch.bmm(taps, x.flatten(2))
    y = F.fold(shares, geometry.out, kernel, dilation, (rows, columns))
    return add_bias(y.clone(), bias)  # torch's own sits in a storage as large as all shares


def mix(columns: Tensor, weight: Tensor, groups: int, out: Sequence[int]) -> Tensor:
    """Multiply ``B Cin*taps places`` by ``B Cout Cin/G ...``, sample by sample and group by group: ``B Cout *out``."""
    if groups == 1:
        y = torch.bmm(weight.flatten(2), columns)
    else:
        y = torch.matmul(weight.flatten(2).unflatten(1, (groups, -1)), columns.unflatten(1, (groups, -1)))
    return y.reshape(-1, weight.shape[1], *out)
