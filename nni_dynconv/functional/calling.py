"""One call of a convolution or linear map: it is measured, a path is chosen, and the path runs, in that order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import paths
from .low_rank import LowRank
from .planning.geometry import Geometry, Sizes
from .planning.measuring import measure
from .planning.problem import Problem, Setting, setting_of
from .planning.rules import choose, possible
from .planning.tuning import fastest, is_tuning, state, trial

__all__ = ["PATHS", "Plan", "call", "find_plan", "run"]

ANY = Setting("any", torch.float32, training=False)  # of a linear map by a whole weight, whose shapes alone decide


class Plan(NamedTuple):
    """How a call runs: by which path, on which sizes, and what is done to ``x`` before."""

    geometry: Geometry
    path: str
    pads: Sizes = ()  # of x, on top of the padding on both sides
    as_image: bool = False  # x is a sequence: an image of one row


def call(axes: int, x: Tensor, weight: Tensor | LowRank, bias: Tensor | None, *options: Any) -> Tensor:
    """Compute a convolution or linear map.

    Parameters
    ----------
    axes
        Of space; negative: of a transposed convolution; 0: of a linear map.
    *options
        In the order of the public function, ``counts`` at the end.

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.
    """
    return run(find_plan(axes, x, weight, bias, *options), x, weight, bias)


def find_plan(axes: int, x: Tensor, weight: Tensor | LowRank, bias: Tensor | None, *options: Any) -> Plan:
    """Return how a call runs: as it was planned before, or measured and chosen anew; as :func:`call`."""
    setting = setting_of(x, weight) if axes or isinstance(weight, LowRank) else ANY
    shapes = x.shape, weight.shape, None if bias is None else bias.shape
    if torch.compiler.is_compiling():
        return _plan_anew(setting, axes, *shapes, *options)
    if is_tuning():
        return _plan_measured(setting, axes, (x, weight, bias), *shapes, *options)
    try:
        return _plan_once(state(), setting, axes, *shapes, *options)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _plan_anew(setting, axes, *shapes, *options)


def run(plan: Plan, x: Tensor, weight: Tensor | LowRank, bias: Tensor | None) -> Tensor:
    """Compute what has been planned."""
    geometry, path, pads, as_image = plan
    if as_image:
        return run(plan._replace(as_image=False), x.unsqueeze(2), _as_image(weight), bias).squeeze(2)
    if pads:
        x = F.pad(x, pads)
    return PATHS["convolution" if geometry.kernel else "linear"][path](x, weight, bias, geometry)


PATHS = paths.table(call)


def _as_image(weight: Tensor | LowRank) -> Tensor | LowRank:
    if not isinstance(weight, LowRank):
        return weight.unsqueeze(-2)
    A, B, base = weight
    return LowRank(A, B.unsqueeze(-2), None if base is None else base.unsqueeze(-2))


def _plan_anew(setting: Setting, axes: int, *problem: Any) -> Plan:
    asked = Problem(measure(axes, *problem).as_image(), setting)
    return _planned(axes, asked.geometry, choose(asked).path)


@lru_cache(maxsize=4096)
def _plan_once(measured: tuple[int, int] | None, *problem: Any) -> Plan:
    return _plan_anew(*problem)


def _plan_measured(
    setting: Setting, axes: int, inputs: tuple[Tensor, Tensor | LowRank, Tensor | None], *problem: Any
) -> Plan:
    asked = Problem(measure(axes, *problem).as_image(), setting)
    names = possible(asked)
    if len(names) > 1:
        x, weight, bias = inputs
        parts = weight if isinstance(weight, LowRank) else (weight,)

        def compute(name: str, x: Tensor, bias: Tensor | None, *parts: Any) -> Tensor:
            weight = LowRank(*parts) if setting.factors is not None else parts[0]
            return run(_planned(axes, asked.geometry, name), x, weight, bias)

        names = [fastest(asked, {name: trial(compute, name, x, bias, *parts) for name in names}, x.device)]
    return _planned(axes, asked.geometry, names[0])


def _planned(axes: int, geometry: Geometry, path: str) -> Plan:
    if geometry.transposed or not any(geometry.extra):
        return Plan(geometry, path, (), axes == 1)
    pads = tuple(size for extra in reversed(geometry.extra) for size in (0, extra))
    return Plan(geometry.padded(), path, pads, axes == 1)
