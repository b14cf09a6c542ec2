"""One call of a convolution or linear map: it is measured, a path is chosen, and the path runs, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from . import paths
from .checks import check_dtypes
from .composed import COMPOSED, Composed, tensors_of, with_parts
from .planning.geometry import Geometry
from .planning.measuring import measure
from .planning.modes import PLAIN, Setting, modes, setting_of
from .planning.problem import Problem
from .planning.rules import choose, possible
from .planning.tuning import fastest, is_tuning, state, trial

__all__ = ["PATHS", "Plan", "call", "find_plan", "make_plan", "run"]

Shapes = tuple[Sequence[int], Sequence[int], Sequence[int] | None]  # of x, weight and bias
Options = tuple[Any, ...]  # in the order of the public function, `counts` at the end
ANY = Setting("any", torch.float32, training=False)  # of a linear map by a whole weight, whose shapes alone decide


class Plan(NamedTuple):
    """How a call runs."""

    geometry: Geometry
    path: str
    compute: paths.Path  # of the table; it makes ``x`` ready first, where need be


def call(axes: int, x: Tensor, weight: Tensor | Composed, bias: Tensor | None, options: Options) -> Tensor:
    """Compute a convolution or linear map.

    Parameters
    ----------
    axes
        Of space; negative: of a transposed convolution; 0: of a linear map.
    options
        In the order of the public function, ``counts`` at the end.

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.
    DtypeError
        If the dtypes differ, outside of autocast.
    """
    return run(find_plan(axes, x, weight, bias, options), x, weight, bias)


def find_plan(axes: int, x: Tensor, weight: Tensor | Composed, bias: Tensor | None, options: Options) -> Plan:
    """Return how a call runs: as it was planned before, or measured and chosen anew; as :func:`call`."""
    try:
        alike = x.dtype is weight.dtype and (bias is None or bias.dtype is x.dtype)
    except AttributeError:  # no tensor
        alike = False
    if not alike:
        check_dtypes(axes, x, weight, bias)
    setting = setting_of(x, weight) if axes or type(weight) not in PLAIN else None  # of a linear map shapes decide
    shapes = x.shape, weight.shape, None if bias is None else bias.shape
    if is_compiling():
        return _plan_anew(setting, axes, shapes, options)
    if modes.noted is not None:
        modes.noted.append(choose(_ask(setting, axes, shapes, options)))
    if setting is not None and is_tuning():
        return _plan_measured(setting, axes, (x, weight, bias), shapes, options)
    try:
        return _plan_once(setting and state(), setting, axes, shapes, options)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _plan_anew(setting, axes, shapes, options)


def run(plan: Plan, x: Tensor, weight: Tensor | Composed, bias: Tensor | None) -> Tensor:
    """Compute what has been planned."""
    return plan.compute(x, weight, bias, plan.geometry)


PATHS = paths.table(call)


def _ask(setting: Setting | None, axes: int, shapes: Shapes, options: Options) -> Problem:
    geometry = measure(axes, *shapes, *options)
    return Problem(geometry.as_image() if axes == 1 else geometry, ANY if setting is None else setting)


def _plan_anew(setting: Setting | None, axes: int, shapes: Shapes, options: Options) -> Plan:
    asked = _ask(setting, axes, shapes, options)
    return make_plan(axes, asked.geometry, choose(asked).path)


@lru_cache(maxsize=4096)
def _plan_once(measured: tuple[int, int] | None, *problem: Any) -> Plan:
    return _plan_anew(*problem)


def _plan_measured(
    setting: Setting | None, axes: int, inputs: tuple[Any, ...], shapes: Shapes, options: Options
) -> Plan:
    asked = _ask(setting, axes, shapes, options)
    names = possible(asked)
    if len(names) > 1:
        x, weight, bias = inputs
        parts = [*tensors_of(weight).values()] if isinstance(weight, COMPOSED) else [weight]

        def compute(name: str, x: Tensor, bias: Tensor | None, *parts: Any) -> Tensor:
            whole = with_parts(weight, list(parts)) if isinstance(weight, COMPOSED) else parts[0]
            return run(make_plan(axes, asked.geometry, name), x, whole, bias)

        names = [fastest(asked, {name: trial(compute, name, x, bias, *parts) for name in names}, x.device)]
    return make_plan(axes, asked.geometry, names[0])


def make_plan(axes: int, geometry: Geometry, path: str) -> Plan:
    """Return the plan of a path; ``axes`` are those of the call: a sequence is an image of one row."""
    compute = PATHS["convolution" if axes else "linear"][path]
    if any(geometry.extra) and not geometry.transposed:
        pads = [size for extra in reversed(geometry.extra) for size in (0, extra)]
        geometry, compute = geometry.padded(), partial(_pad_first, compute, pads)
    return Plan(geometry, path, partial(_as_image, compute) if axes == 1 else compute)


def _pad_first(
    compute: paths.Path, pads: list[int], x: Tensor, weight: Tensor | Composed, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    return compute(F.pad(x, pads), weight, bias, geometry)


def _as_image(
    compute: paths.Path, x: Tensor, weight: Tensor | Composed, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    weight = weight.as_image() if isinstance(weight, COMPOSED) else weight.unsqueeze(-2)
    return compute(x.unsqueeze(2), weight, bias, geometry).squeeze(2)
