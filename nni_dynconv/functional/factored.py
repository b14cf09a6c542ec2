"""A call whose weight is given by factors: whether the weight is formed, by the rule or as measured, and both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .low_rank import LowRank, apply_factors
from .planning.geometry import GeometryLinear, GeometryNd, measure_linear, measure_nd
from .planning.planner import APPLIED, FORMED, Choice, Factors, Setting, can_apply, choose_factors
from .planning.tuning import fastest, is_tuning, recall, state, trial

__all__ = ["call_factored", "decide_factors"]

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
    way = FORMED if torch.compiler.is_compiling() else _find_way(op, axes, setting, (x, weight, bias), options, counts)
    return WAYS[way](op, x, weight, bias, options, counts)


def decide_factors(geometry: GeometryNd | GeometryLinear, factors: Factors, setting: Setting) -> Choice:
    """Say whether factors are applied or formed: as measured on this machine, or else by the rule."""
    measured = recall(_problem(geometry, factors, setting)) if can_apply(geometry, setting) else None
    if measured is not None and measured.path in WAYS:  # the file of another version may differ
        return measured
    return choose_factors(geometry, *factors, setting)


def _form(
    op: Callable[..., Tensor], x: Tensor, weight: LowRank, bias: Tensor | None, options: Sequence[Any], counts: Counts
) -> Tensor:
    return op(x, weight.whole(), bias, *options, counts=counts)


WAYS: dict[str, Callable[..., Tensor]] = {APPLIED: apply_factors, FORMED: _form}


def _find_way(
    op: Callable[..., Tensor],
    axes: int,
    setting: Setting,
    inputs: tuple[Tensor, LowRank, Tensor | None],
    options: Sequence[Any],
    counts: Counts,
) -> str:
    x, weight, bias = inputs
    factors = Factors(weight.rank, weight.base is not None)
    problem = axes, x.shape, weight.shape, None if bias is None else bias.shape, *options, counts
    if is_tuning():
        return _way_measured(op, setting, factors, inputs, options, *problem)
    try:
        return _way_once(state(), setting, factors, *problem)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _way_anew(setting, factors, *problem)


def _way_anew(setting: Setting, factors: Factors, *problem: Any) -> str:
    return decide_factors(_measure(*problem), factors, setting).path


@lru_cache(maxsize=4096)
def _way_once(measured: tuple[int, int] | None, *problem: Any) -> str:
    return _way_anew(*problem)


def _way_measured(
    op: Callable[..., Tensor],
    setting: Setting,
    factors: Factors,
    inputs: tuple[Tensor, LowRank, Tensor | None],
    options: Sequence[Any],
    *problem: Any,
) -> str:
    geometry = _measure(*problem)
    if not can_apply(geometry, setting):
        return decide_factors(geometry, factors, setting).path
    x, weight, bias = inputs

    def run(way: str, x: Tensor, A: Tensor, B: Tensor, base: Tensor | None, bias: Tensor | None) -> Tensor:
        return WAYS[way](op, x, LowRank(A, B, base), bias, options, problem[-1])

    trials = {way: trial(run, way, x, *weight, bias) for way in WAYS}
    return fastest(_problem(geometry, factors, setting), trials, x.device)


def _problem(geometry: GeometryNd | GeometryLinear, factors: Factors, setting: Setting) -> object:
    """Return what a measurement is remembered by; what is called in the end asks anew for compiled kernels."""
    return geometry, factors, setting._replace(kernels=False)


def _measure(axes: int, *problem: Any) -> GeometryNd | GeometryLinear:
    return measure_nd(axes, *problem) if axes else measure_linear(*problem)
