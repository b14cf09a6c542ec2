"""Sets of weights that serve blocks of samples: by convolutions whose weights all their samples share, or each has.

No form repeats a set for each of its samples: memory grows with the number of sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..paths import kernels
from ..paths.nd import choose_nd, possible_nd
from ..paths.planar import add_bias
from .geometry import Geometry, GeometryNd
from .planner import Choice, Setting, choose, is_compiled, possible
from .sets import Counts, spread
from .tuning import recall

__all__ = ["FORMS", "alternatives", "decide"]

Convolve = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]  # x, weight, bias, groups
LARGE_BLOCK = 1 << 15  # elements of x in a block from which a call for each block beats the copies of one for all


def decide(geometry: Geometry | GeometryNd, setting: Setting) -> Choice:
    """Pick the form for blocks of samples, or the path of a convolution whose weights are shared or per sample."""
    if geometry.bias_counts is not None:
        return Choice("bias_apart", "the bias has other sets than the weight: it is added afterwards")
    measured = None if _is_fixed(geometry, setting) else recall((geometry, setting))
    if measured is not None and measured.path in _able(geometry, setting):  # the file of another version may differ
        return measured
    if geometry.counts is not None:
        return _form(geometry, geometry.counts, setting)
    return choose(geometry, setting) if isinstance(geometry, Geometry) else choose_nd(geometry, setting)


def alternatives(geometry: Geometry | GeometryNd, setting: Setting) -> list[str]:
    """List what can compute a convolution, for whoever measures which is the fastest: at least what the rules pick."""
    if geometry.bias_counts is not None or _is_fixed(geometry, setting):
        return [decide(geometry, setting).path]
    return _able(geometry, setting)


def _is_fixed(geometry: Geometry | GeometryNd, setting: Setting) -> bool:
    """Whether the rules alone decide."""
    return setting.portable or setting.transformed or setting.deterministic or not geometry.B


def _able(geometry: Geometry | GeometryNd, setting: Setting) -> list[str]:
    if geometry.counts is not None:
        return _forms(geometry, geometry.counts, setting)
    return possible(geometry, setting) if isinstance(geometry, Geometry) else possible_nd(geometry, setting)


def _forms(geometry: Geometry | GeometryNd, counts: Counts, setting: Setting) -> list[str]:
    if len(counts) == 1 or len(set(counts)) > 1:
        return ["split"]
    stacks = geometry.pointwise and set(geometry.stride) == {1}
    compiled = ["compiled"] if setting.kernels and kernels.serves(geometry) else []
    return ["split", "regrouped", *(["stacked"] if stacks else []), *compiled]


def _form(geometry: Geometry | GeometryNd, counts: Counts, setting: Setting) -> Choice:
    if setting.portable or len(counts) == 1 or len(set(counts)) > 1 or not counts[0]:
        return Choice("split", "one shared convolution for each block of samples")
    if geometry.pointwise and set(geometry.stride) == {1}:
        return Choice("stacked", "a 1x1 kernel only mixes channels: the samples of a block lie side by side")
    if is_compiled(geometry, setting):
        return Choice("compiled", "equal blocks in float32, for which there is a compiled kernel")
    if setting.device == "cpu" and counts[0] * geometry.Cin * math.prod(geometry.size) > LARGE_BLOCK:
        return Choice("split", "one shared convolution for each block of samples: the blocks are large")
    return Choice("regrouped", "the blocks of samples fit into the groups of one convolution")


def split(convolve: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts, groups: int) -> Tensor:
    """One call a block. ``weight: D ...``; ``bias: [D] Cout``."""
    D = len(counts)
    biases: Sequence[Tensor | None] = [None] * D if bias is None else bias.expand(D, bias.shape[-1]).unbind()
    parts = zip(x.split(counts), weight.unbind(), biases, strict=True)
    outputs = [convolve(block, one, added, groups) for block, one, added in parts]
    return outputs[0] if D == 1 else torch.cat(outputs)


def regrouped(
    convolve: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts, groups: int
) -> Tensor:
    """Equal blocks laid into the channels: one call with ``D * G`` groups for a batch of ``B / D`` samples."""
    D, r = len(counts), counts[0]
    flat = None if bias is None else bias.expand(D, bias.shape[-1]).reshape(-1)
    laid = x.unflatten(0, (D, r)).transpose(0, 1).flatten(1, 2)  # r D*Cin ...
    y = convolve(laid, weight.flatten(0, 1), flat, D * groups)
    return y.unflatten(1, (D, -1)).transpose(0, 1).flatten(0, 1)


def stacked(convolve: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts, groups: int) -> Tensor:
    """Equal blocks laid side by side along the first axis of space: ``D`` tall samples, each with its own weights."""
    D, r = len(counts), counts[0]
    own = None if bias is None else bias.expand(D, bias.shape[-1])
    tall = x.unflatten(0, (D, r)).transpose(1, 2).flatten(2, 3)  # D Cin r*H ...
    return convolve(tall, weight, own, groups).unflatten(2, (r, -1)).transpose(1, 2).flatten(0, 1)


def bias_apart(
    convolve: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts, groups: int
) -> Tensor:
    """Add the bias, whose sets serve ``counts`` samples, to a convolution without one."""
    return add_bias(convolve(x, weight, None, groups), None if bias is None else spread(bias, counts))


FORMS = {"split": split, "regrouped": regrouped, "stacked": stacked, "bias_apart": bias_apart}
