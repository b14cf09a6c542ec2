"""A call whose weight is given by factors, made of calls with whole weights: ``call`` computes them."""

from __future__ import annotations

from torch import Tensor

from ..low_rank import LowRank
from ..planning.geometry import Geometry
from .blocks import Call

__all__ = ["applied", "formed"]


def applied(call: Call, x: Tensor, weight: LowRank, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Map by B, then mix the channels by A; add what the base gives."""
    (A, B, base), axes, options = weight, geometry.axes, geometry.arguments(1)
    thin = call(axes, x, B, None, (*options, geometry.counts))  # B r ..., or B ... r
    mixing = (1, 0, 1, 1) if axes else ()
    mixed = call(axes, thin, A.reshape(*A.shape, *[1] * (B.dim() - A.dim())), bias, (*mixing, geometry.counts))
    return mixed if base is None else mixed + call(axes, x, base, None, (*options, None))


def formed(call: Call, x: Tensor, weight: LowRank, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Multiply the factors first."""
    return call(geometry.axes, x, weight.whole(), bias, (*geometry.arguments(geometry.G), geometry.counts))
