"""A call whose weight is given by parts, made of calls with whole weights: ``call`` computes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..composed import Composed, LowRank, Mixed, Scaled, parts_of, split_sets
from ..planning.composed import piece_of
from ..planning.geometry import Geometry
from ..planning.sets import spread
from . import convolutions, linear
from .blocks import Call
from .forming import formed_again

__all__ = ["applied", "formed"]


def applied(call: Call, x: Tensor, weight: Composed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Apply the parts to what goes through."""
    if isinstance(weight, LowRank):
        return _multiplied(call, x, weight, bias, geometry)
    if isinstance(weight, Scaled):
        return _scaled(call, x, weight, bias, geometry)
    return _mixed(call, x, weight, bias, geometry)


def formed(call: Call, x: Tensor, weight: Composed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Form the weight first, of some samples at a time where it is large."""
    options = *geometry.arguments(geometry.G), geometry.counts
    count = piece_of(geometry, parts_of(weight), weight.dtype.itemsize)
    if count is None:
        return _formed(call, geometry.axes, x, weight, bias, options)
    samples = x.split(count)
    own = bias is not None and bias.dim() == 2 and len(bias) == geometry.B
    biases = bias.split(count) if bias is not None and own else [bias] * len(samples)
    pieces = zip(samples, split_sets(weight, count), biases, strict=True)
    return torch.cat([_formed(call, geometry.axes, *piece, options) for piece in pieces])


def _formed(
    call: Call, axes: int, x: Tensor, weight: Composed, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    whole = weight.whole()
    with formed_again(weight, whole):
        return call(axes, x, whole, bias, options)


def _multiplied(call: Call, x: Tensor, weight: LowRank, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Map by B, then mix the channels by A; add what the base gives."""
    (A, B, base), axes, options = weight, geometry.axes, geometry.arguments(1)
    thin = call(axes, x, B, None, (*options, geometry.counts))  # B r ..., or B ... r
    mixing = (1, 0, 1, 1) if axes else ()
    mixed = call(axes, thin, A.reshape(*A.shape, *[1] * (B.dim() - A.dim())), bias, (*mixing, geometry.counts))
    return mixed if base is None else mixed + call(axes, x, base, None, (*options, None))


def _scaled(call: Call, x: Tensor, weight: Scaled, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Scale what the base gives, and add the bias to it, in one pass."""
    y = call(geometry.axes, x, weight.base, None, (*geometry.arguments(geometry.G), None))
    scale = _along(_of_samples(weight.scale, geometry), y, geometry)
    if bias is None:
        return y * scale
    return torch.addcmul(_along(_of_samples(bias, geometry), y, geometry), y, scale)


def _mixed(call: Call, x: Tensor, weight: Mixed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Apply all weights as one, whose outputs are then mixed."""
    E, options = weight.rank, (*geometry.arguments(geometry.G), None)
    y = call(geometry.axes, x, weight.bank.flatten(0, 1), None, options)  # B E*Cout ..., or B ... E*Cout
    shares = _of_samples(torch.atleast_2d(weight.shares), geometry).unsqueeze(1)  # [B] 1 E
    if geometry.kernel:
        mixed = (shares @ y.reshape(geometry.B, E, -1)).view(geometry.output)
    else:
        mixed = (shares.flatten(0, 1).view(-1, *[1] * (y.dim() - 2), 1, E) @ y.unflatten(-1, (E, -1))).squeeze(-2)
    mixed = mixed if weight.base is None else mixed + call(geometry.axes, x, weight.base, None, options)
    add = (convolutions if geometry.kernel else linear).add_bias
    return add(mixed, None if bias is None else _of_samples(bias, geometry))


def _of_samples(values: Tensor, geometry: Geometry) -> Tensor:  # [D] n -> [B] n
    shared = geometry.counts is None or values.dim() == 1 or len(values) != geometry.sets
    return values if shared else spread(values, geometry.counts or ())


def _along(values: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """View ``[B] Cout`` so that it meets the channels of an output."""
    ones = [1] * (y.dim() - 2)
    if geometry.kernel:
        return values.reshape(*values.shape, *ones)
    return values.reshape(*values.shape[:-1], *ones, values.shape[-1]) if values.dim() == 2 else values
