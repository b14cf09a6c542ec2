"""``linear``: an affine map whose weights are shared, or made anew for samples or blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv import setting_of
from .factored import call_factored
from .low_rank import LowRank
from .planning.geometry import GeometryLinear, measure_linear
from .planning.planner import choose_linear
from .planning.sets import Counts, spread

__all__ = ["linear"]


def linear(
    x: Tensor,  # B ... Cin
    weight: Tensor | LowRank,  # Cout Cin, or B Cout Cin, or D Cout Cin
    bias: Tensor | None = None,  # Cout, or B Cout, or D Cout
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B ... Cout
    r"""Map the last axis of each sample with the shared weights, with its own, or with those of its block of samples.

    .. math:: y_b = x_b w_{d(b)}^\top + c_{d(b)}, \qquad b = 1, \dots, B

    Parameters
    ----------
    x : Tensor, shape (B, ..., Cin)
    weight : Tensor, shape (Cout, Cin), (B, Cout, Cin) or (D, Cout, Cin)
        Two axes: shared by all samples. Three: one set per sample, or one for each of D blocks of consecutive samples:
        of B/D samples, or of ``counts``. Or a :class:`LowRank`: the planner forms these, or applies the factors.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape (B, ..., Cout)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> weight = torch.tensor([[[1.0, 1, 1]], [[2, 2, 2]]])
    >>> linear(torch.ones(2, 3), weight).tolist()
    [[3.0], [6.0]]
    >>> linear(torch.ones(4, 3), weight).flatten().tolist()
    [3.0, 3.0, 6.0, 6.0]
    """
    counts = None if counts is None else tuple(counts)
    if isinstance(weight, LowRank):
        return call_factored(linear, 0, setting_of(x, weight), x, weight, bias, counts=counts)
    geometry, path = _find_plan(x, weight, bias, counts)
    return PATHS[path](x, weight, bias, geometry)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryLinear) -> Tensor:
    shared = bias is None or bias.dim() == 1
    return F.linear(x, weight, bias) if shared else _add_bias(F.linear(x, weight), bias)


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryLinear) -> Tensor:
    if x.dim() == 2:
        return _add_bias(torch.bmm(x.unsqueeze(1), weight.mT).squeeze(1), bias)
    return _add_bias(torch.bmm(x.flatten(1, -2), weight.mT).unflatten(1, x.shape[1:-1]), bias)


def _stacked(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryLinear) -> Tensor:
    return _matmul(x.unflatten(0, (geometry.sets, -1)), weight, bias, geometry).flatten(0, 1)


def _split(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryLinear) -> Tensor:
    D, counts = geometry.sets, geometry.counts or ()
    biases = [None] * D if bias is None else bias.expand(D, bias.shape[-1]).unbind()
    return torch.cat([F.linear(*one) for one in zip(x.split(counts), weight.unbind(), biases, strict=True)])


def _bias_apart(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryLinear) -> Tensor:
    y = linear(x, weight, counts=geometry.counts)
    return y if bias is None else _add_bias(y, spread(bias, geometry.bias_counts or ()))


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor | None, GeometryLinear], Tensor]] = {
    "plain": _plain,
    "matmul": _matmul,
    "stacked": _stacked,
    "split": _split,
    "bias_apart": _bias_apart,
}


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B ... Cout, [B] Cout -> B ... Cout
    if bias is None:
        return y
    while bias.dim() not in (1, y.dim()):
        bias = bias.unsqueeze(1)
    return y + bias


def _find_plan(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts | None) -> tuple[GeometryLinear, str]:
    problem = x.shape, weight.shape, None if bias is None else bias.shape, counts
    if torch.compiler.is_compiling():
        return _plan_anew(*problem)
    try:
        return _plan_once(*problem)
    except TypeError:  # a symbolic size: nothing to remember it by
        return _plan_anew(*problem)


def _plan_anew(*problem: Any) -> tuple[GeometryLinear, str]:
    geometry = measure_linear(*problem)
    return geometry, choose_linear(geometry).path


_plan_once = lru_cache(maxsize=4096)(_plan_anew)
