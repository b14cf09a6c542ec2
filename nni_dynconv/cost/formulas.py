"""Shapes and multiply-adds of each dynamic op by a formula of its type, registered with NNI's profilers.

An op's weights are counted at a price for its site, which the profiler sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import MutableExpression
from nni.nas.profiler.pytorch.flops import FlopsParamsCounterConfig, FlopsResult, register_flops_formula
from nni.nas.profiler.pytorch.utils import MutableShape, register_shape_inference_formula
from nni.nas.profiler.pytorch.utils.shape import switch_case_shape_info
from torch import nn

from .. import ops
from ..errors import SpaceError
from ..ops import ChoiceOp, DynamicOp

__all__ = ["FORMULAS", "Price", "priced", "register_like"]


class Price(NamedTuple):
    """What the weights of each site cost.

    Parameters
    ----------
    flops
        Multiply-adds for one sample of a batch.
    params
        Parameters that are stored for the site alone.
    """

    flops: Mapping[str, float]
    params: Mapping[str, float]


_price: ContextVar[Price | None] = ContextVar("nni_dynconv.cost.formulas.price", default=None)


@contextmanager
def priced(price: Price) -> Iterator[None]:
    """Count what the weights of each op cost, inside the block."""
    token = _price.set(price)
    try:
        yield
    finally:
        _price.reset(token)


# Shapes


def _slid(size: Any, kernel: int, stride: int, padding: int, dilation: int) -> Any:
    return (size + (2 * padding - dilation * (kernel - 1) - 1)) // stride + 1


def _conv_shape(op: Any, x: Any) -> MutableShape:
    shape, rank = list(x.real_shape), len(op.kernel_size)
    shape[-rank - 1] = op.out_channels
    for axis in range(rank):
        geometry = op.kernel_size[axis], op.stride[axis], op.dilation[axis]
        if op.padding != "same":  # which keeps the size
            padding = 0 if op.padding == "valid" else op.padding[axis]
            shape[axis - rank] = _slid(shape[axis - rank], geometry[0], geometry[1], padding, geometry[2])
    return MutableShape(*shape)


def _transposed_shape(op: Any, x: Any) -> MutableShape:
    shape, rank = list(x.real_shape), len(op.kernel_size)
    shape[-rank - 1] = op.out_channels
    for axis in range(rank):
        reach = op.dilation[axis] * (op.kernel_size[axis] - 1) + op.output_padding[axis] + 1 - 2 * op.padding[axis]
        shape[axis - rank] = (shape[axis - rank] - 1) * op.stride[axis] + reach
    return MutableShape(*shape)


def _linear_shape(op: Any, x: Any) -> MutableShape:
    return MutableShape(*list(x.real_shape)[:-1], op.out_features)


def _same_shape(op: Any, x: Any) -> MutableShape:
    return x.real_shape


# Multiply-adds


def _count_conv(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    taps = op.in_channels // op.groups * math.prod(op.kernel_size)
    return FlopsResult(y[1:].numel() * (taps + (op.has_bias and config.count_bias)), 0)


def _count_transposed(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    taps = op.out_channels // op.groups * math.prod(op.kernel_size)  # that each input is sent to
    return FlopsResult(x[1:].numel() * taps + y[1:].numel() * (op.has_bias and config.count_bias), 0)


def _count_linear(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    return FlopsResult(y[1:].numel() * (op.in_features + (op.has_bias and config.count_bias)), 0)


def _count_norm(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    return FlopsResult(4 * x[1:].numel() * config.count_normalization, 0)  # NNI counts an affine BatchNorm so


def _count_separable(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    inner = MutableShape(y[0], op.in_channels, *y[2:])
    flops = x[1:].numel() * config.count_activation
    flops = flops + inner.numel() // inner[0] * math.prod(op.kernel_size) + y[1:].numel() * op.in_channels
    normalised = config.count_normalization and not isinstance(op.norm, nn.Identity)
    affine = getattr(op.norm, "affine", True)
    params = sum(one.numel() for one in op.norm.parameters())
    return FlopsResult(flops + 2 * (1 + affine) * y[1:].numel() * normalised, params * config.count_normalization)


# Formulas of a type


_ONES = {"Dynamic" + name: (_conv_shape, _count_conv) for name in ("Conv1d", "Conv2d", "Conv3d", "PatchConv2d")}
_ONES |= {f"DynamicConvTranspose{rank}d": (_transposed_shape, _count_transposed) for rank in (1, 2, 3)}
_ONES |= {name: (_same_shape, _count_norm) for name in ops.__all__ if "Norm" in name}
_ONES |= dict.fromkeys(("DynamicSepConv", "DynamicDilConv"), (_conv_shape, _count_separable))
_ONES["DynamicLinear"] = _linear_shape, _count_linear
Formulas = tuple[Callable[..., MutableShape], Callable[..., FlopsResult]]
# Of each type `(shape(op, x), count(op, x, y, config))`; derived types are counted as theirs.
FORMULAS: dict[type[DynamicOp], Formulas] = {getattr(ops, name): formulas for name, formulas in _ONES.items()}


def _formulas_of(op: DynamicOp) -> Formulas:
    near = next((cls for cls in type(op).__mro__ if cls in FORMULAS), None)
    if near is None:
        raise SpaceError(
            f"{type(op).__name__} has no formula for its shape and multiply-adds. Give it one: add the class to "
            f"`nni_dynconv.cost.profiler.FORMULAS`, as a pair `(shape(op, x), count(op, x, y, config))`."
        )
    return FORMULAS[near]


# Choices among an op's arguments


def _by_choice(choice: ChoiceOp, of: Callable[[DynamicOp], Any], switch: Callable[[Any, dict[Any, Any]], Any]) -> Any:
    """Combine what the variants give into one expression of the choices."""
    symbols = {label: one for mutable in choice.mutables for label, one in mutable.simplify().items()}

    def over(labels: list[str], sample: dict[str, Any]) -> Any:
        if not labels:
            return of(choice.at(sample))
        label, *rest = labels
        branches = {value: over(rest, {**sample, label: value}) for value in choice.candidates[label]}
        return switch(symbols[label], branches)

    return over(list(choice.candidates), {})


def _choice_shape(choice: ChoiceOp, x: Any) -> MutableShape:
    return _by_choice(choice, lambda op: _formulas_of(op)[0](op, x), switch_case_shape_info)


def _count_choice(choice: ChoiceOp, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    x = x[0] if isinstance(x, tuple) else x

    def count(op: DynamicOp) -> FlopsResult:
        shape, formula = _formulas_of(op)
        return formula(op, x, shape(op, _Shaped(x)), config) + _cost(op)

    return FlopsResult(
        *(
            _by_choice(choice, lambda op, part=part: count(op)[part], MutableExpression.switch_case)  # type: ignore[misc]
            for part in (0, 1)
        )
    )


class _Shaped(NamedTuple):
    """What shape formulas read of a tensor."""

    real_shape: MutableShape


# NNI's profilers


def _register(cls: type[DynamicOp], formulas: Formulas) -> None:
    shape, count = formulas

    def count_all(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
        x, y = (one[0] if isinstance(one, tuple) else one for one in (x, y))
        return count(op, x, y, config) + _cost(op)

    register_shape_inference_formula(cls, shape)
    register_flops_formula(cls, count_all)


def _cost(op: DynamicOp) -> FlopsResult:
    price = _price.get()
    if price is None:
        return FlopsResult(0, 0)
    return FlopsResult(price.flops.get(str(op.site), 0), price.params.get(str(op.site), 0))


_known: set[type] = set(FORMULAS)


def register_like(op: DynamicOp) -> None:
    """Let an op of a class derived from one of ours be counted as that one.

    Raises
    ------
    SpaceError
        It is derived from none.
    """
    if type(op) not in _known:
        _register(type(op), _formulas_of(op))
        _known.add(type(op))


for _cls, _formulas in FORMULAS.items():
    _register(_cls, _formulas)
register_shape_inference_formula(ChoiceOp, _choice_shape)
register_flops_formula(ChoiceOp, _count_choice)
