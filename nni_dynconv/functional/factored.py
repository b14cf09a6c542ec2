"""A call whose weight is given by factors: whether the weight is formed, and both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .geometry import GeometryLinear, GeometryNd, measure_linear, measure_nd
from .low_rank import LowRank, apply_factors
from .planner import APPLIED, FORMED, Factors, Setting, choose_factors

__all__ = ["call_factored"]

Counts = Sequence[int] | None


def call_factored(
    op: Callable[..., Tensor],
    axes: int,
    setting: Setting,
    x: Tensor,
    weight: LowRank,
    bias: Tensor | None,
    options: Sequence[Any] = (),
    counts: Counts = None,
) -> Tensor:
    """Compute ``op(x, weight, bias, *options, counts=counts)`` where the weight is given by factors.

    Parameters
    ----------
    op
        Takes whole weights.
    axes
        Of space: of a convolution 1, 2 or 3, of a linear map 0.
    """
    way = FORMED if torch.compiler.is_compiling() else _find_way(axes, setting, (x, weight, bias), options, counts)
    return WAYS[way](op, x, weight, bias, options, counts)


def _form(
    op: Callable[..., Tensor], x: Tensor, weight: LowRank, bias: Tensor | None, options: Sequence[Any], counts: Counts
) -> Tensor:
    return op(x, weight.whole(), bias, *options, counts=counts)


WAYS: dict[str, Callable[..., Tensor]] = {APPLIED: apply_factors, FORMED: _form}


def _find_way(
    axes: int,
    setting: Setting,
    inputs: tuple[Tensor, LowRank, Tensor | None],
    options: Sequence[Any],
    counts: Counts,
) -> str:
    x, weight, bias = inputs
    factors = Factors(weight.rank, weight.base is not None)
    problem = axes, x.shape, weight.shape, None if bias is None else bias.shape, *options, counts
    try:
        return _way_once(setting, factors, *problem)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _way_anew(setting, factors, *problem)


def _way_anew(setting: Setting, factors: Factors, *problem: Any) -> str:
    return choose_factors(_measure(*problem), *factors, setting).path


_way_once = lru_cache(maxsize=4096)(_way_anew)


def _measure(axes: int, *problem: Any) -> GeometryNd | GeometryLinear:
    return measure_nd(axes, *problem) if axes else measure_linear(*problem)
