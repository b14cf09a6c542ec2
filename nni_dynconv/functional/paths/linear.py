"""One linear map, by torch's, or by matrix products for samples or blocks: ``B ... Cin``, ``[D] Cout Cin``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.geometry import Geometry

__all__ = ["add_bias", "matmul", "plain", "split", "stacked"]


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B ... Cout, [B] Cout -> B ... Cout
    if bias is None:
        return y
    while bias.dim() not in (1, y.dim()):
        bias = bias.unsqueeze(1)
    return y + bias


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One weight for all samples."""
    shared = bias is None or bias.dim() == 1
    return F.linear(x, weight, bias) if shared else add_bias(F.linear(x, weight), bias)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One matrix product a sample."""
    axes = x.dim()
    if axes == 2:
        y = torch.bmm(x.unsqueeze(1), weight.mT).squeeze(1)
        return y if bias is None else y + bias
    if axes == 3:
        return add_bias(torch.bmm(x, weight.mT), bias)
    return add_bias(torch.bmm(x.flatten(1, -2), weight.mT).unflatten(1, x.shape[1:-1]), bias)


def stacked(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Equal blocks: their samples are more rows of one matrix each."""
    return matmul(x.unflatten(0, (geometry.sets, -1)), weight, bias, geometry).flatten(0, 1)


def split(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One map a block."""
    D, counts = geometry.sets, geometry.counts or ()
    biases = [None] * D if bias is None else bias.expand(D, bias.shape[-1]).unbind()
    return torch.cat([F.linear(*one) for one in zip(x.split(counts), weight.unbind(), biases, strict=True)])
