"""Sets of weights that serve blocks of samples: by convolutions whose weights all their samples share, or each has.

No form repeats a set for each of its samples: memory grows with the number of sets. The convolutions that a form is
made of are calls of their own, handed to it as ``call``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..planning.geometry import Geometry
from ..planning.sets import Counts, spread
from . import convolutions, linear

__all__ = ["Call", "bias_apart", "regrouped", "split", "stacked"]

Call = Callable[..., Tensor]  # axes, x, weight, bias, (*options, counts)


def split(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One call a block. ``weight: D ...``; ``bias: [D] Cout``."""
    counts, options = geometry.counts or (), geometry.arguments(geometry.G)
    D = len(counts)
    biases: Sequence[Tensor | None] = [None] * D
    if bias is not None:
        biases = [bias] * D if bias.dim() in (1, 3) or len(bias) != D else bias.unbind()
    parts = zip(x.split(counts), weight.unbind(), biases, strict=True)
    outputs = [call(geometry.axes, *part, (*options, None)) for part in parts]
    return outputs[0] if D == 1 else torch.cat(outputs)


def regrouped(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Equal blocks laid into the channels: one call with ``D * G`` groups for a batch of ``B / D`` samples."""
    D, r = _blocks(geometry)
    flat = None if bias is None else bias.expand(D, bias.shape[-1]).reshape(-1)
    laid = x.unflatten(0, (D, r)).transpose(0, 1).flatten(1, 2)  # r D*Cin ...
    y = call(geometry.axes, laid, weight.flatten(0, 1), flat, (*geometry.arguments(D * geometry.G), None))
    return y.unflatten(1, (D, -1)).transpose(0, 1).flatten(0, 1)


def stacked(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Equal blocks laid side by side along the first axis of space: ``D`` tall samples, each with its own weights."""
    D, r = _blocks(geometry)
    own = None if bias is None else bias.expand(D, bias.shape[-1])
    tall = x.unflatten(0, (D, r)).transpose(1, 2).flatten(2, 3)  # D Cin r*H ...
    y = call(geometry.axes, tall, weight, own, (*geometry.arguments(geometry.G), None))
    return y.unflatten(2, (r, -1)).transpose(1, 2).flatten(0, 1)


def bias_apart(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Add the bias, whose sets are not those of the weight, to a call without one; also to a linear map."""
    y = call(geometry.axes, x, weight, None, (*geometry.arguments(geometry.G), geometry.counts))
    add = (convolutions if geometry.kernel else linear).add_bias
    return y if bias is None else add(y, spread(bias, geometry.bias_counts or ()))


def _blocks(geometry: Geometry) -> tuple[int, int]:  # D, and the samples of each
    counts: Counts = geometry.counts or ()
    return len(counts), counts[0]
