"""NNI's profilers for dynamic spaces: shapes and multiply-adds of each op, and what its controller costs.

NNI counts a module by a formula of its type. Those of the dynamic ops are here; the cost of making weights is added
where a space is profiled by the classes of this file, which are NNI's ``ExpressionProfiler`` and go wherever one goes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from . import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler
from nni.nas.profiler.pytorch.flops import (
    FlopsParamsCounterConfig,
    FlopsParamsProfiler,
    FlopsResult,
    register_flops_formula,
)
from nni.nas.profiler.pytorch.utils import MutableShape, ShapeTensor, register_shape_inference_formula
from nni.nas.profiler.pytorch.utils.shape import switch_case_shape_info
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from . import ops
from .architecture import ArchitectureEncoder, FixedArchitecture
from .controllers import ChunkedController, Controller
from .errors import SpaceError
from .given import bind_own_input, recipes_for
from .ops import DynamicOp
from .ops.choices import ChoiceOp
from .source import WeightSource, site_of
from .spec import Site
from .supernet import is_supernet, name_sites

__all__ = ["DynamicFlopsProfiler", "DynamicNumParamsProfiler"]


class _Price(NamedTuple):
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


_price: ContextVar[_Price | None] = ContextVar("nni_dynconv.profiler.price", default=None)


class DynamicFlopsProfiler(ExpressionProfiler):
    """Multiply-adds of each architecture of a dynamic space for one sample, with those that make its weights.

    Parameters
    ----------
    space
        Before a mutator has made a supernet of it.
    args
        Dummy inputs, as of NNI's ``FlopsProfiler``.
    controller
        As the mutator will get it, not yet bound; a :class:`~nni_dynconv.controllers.ChunkedController` by default.
    context
        The context's encoder, or ``None``.
    example
        One context for the encoder, of batch 1, for its own multiply-adds, which are left out without one.
    architecture
        The architecture's encoder, or ``None``.
    contexts_per_sample
        Sets of weights that are made for each sample of a batch: 1 where each has a context of its own, ``1 / B`` where
        a batch of ``B`` shares one, 0 where weights are made once and kept.
    **config
        ``base``, ``delta``, ``rank``, ``per_site``, as of :class:`~nni_dynconv.mutator.DynamicWeightMutator`; and
        ``count_bias``, ``count_normalization``, ``count_activation``, as of NNI's.

    Raises
    ------
    SpaceError
        The space is a supernet already, has no dynamic op, or one without a formula.

    Notes
    -----
    Each site is counted as if its weights were made by themselves. Made together, as they are, they share what a
    controller computes once a call: the count is a little high.

    Examples
    --------
    >>> from nni_dynconv import DynamicConv2d
    >>> class Space(ModelSpace):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = DynamicConv2d(3, 8, 3, bias=False)
    ...
    ...     def forward(self, x):
    ...         return self.conv(x)
    >>> x = torch.zeros(1, 3, 12, 12)
    >>> DynamicFlopsProfiler(Space(), x, contexts_per_sample=0).profile({}) == 8 * 10 * 10 * 3 * 9
    True
    >>> chunks = 4 * (16 * 128 + 128 * 128 + 128 * 64)  # position, middle layer, last layer of the controller
    >>> DynamicFlopsProfiler(Space(), x).profile({}) == 21600 + 16 * 128 + chunks + 216  # and the site's row; scaling
    True
    """

    def __init__(
        self,
        space: ModelSpace,
        args: Any,
        *,
        controller: Controller | None = None,
        context: nn.Module | None = None,
        example: Any = None,
        architecture: ArchitectureEncoder | None = None,
        contexts_per_sample: float = 1.0,
        **config: Any,
    ):
        made = _Making(space, controller, context, architecture, _recipe_settings(config))
        price = {name: contexts_per_sample * flops for name, flops in made.flops().items()}
        result = _count(space, args, _Price(price, {}), config)
        self.expression = result.flops + contexts_per_sample * made.encoder_flops(example)


class DynamicNumParamsProfiler(ExpressionProfiler):
    """Parameters that each architecture of a dynamic space stores: its own, and those that make its weights.

    It is the number of parameters of what :meth:`~nni_dynconv.mutator.DynamicWeightMutator.freeze` returns: controller
    and encoder, and of each site that is alive its row and its base. Generated values are no parameters;
    ``mutator.plan(sample).num_generated`` counts them. The controller counts in every architecture, also in one of
    static weights only, which is stored without.

    Parameters
    ----------
    space, args, controller, context, architecture, **config
        As of :class:`DynamicFlopsProfiler`.

    Raises
    ------
    SpaceError
        As there.
    """

    def __init__(
        self,
        space: ModelSpace,
        args: Any,
        *,
        controller: Controller | None = None,
        context: nn.Module | None = None,
        architecture: ArchitectureEncoder | None = None,
        **config: Any,
    ):
        made = _Making(space, controller, context, architecture, _recipe_settings(config))
        own, shared = made.params()
        self.expression = _count(space, args, _Price({}, own), config).params + shared


class _Making:
    """What it costs to make weights, seen on copies of the controller that know one site each.

    So the cost of an architecture is a sum over its sites, which is what NNI's expressions need: what sites share in a
    call of the controller is counted for each of them.
    """

    def __init__(
        self,
        space: ModelSpace,
        controller: Controller | None,
        context: nn.Module | None,
        architecture: ArchitectureEncoder | None,
        settings: dict[str, Any],
    ):
        if is_supernet(space):
            raise SpaceError(
                f"{type(space).__name__} is a supernet already. Make the profiler of the space first, then the mutator."
            )
        ops = {str(op.site): op for op in name_sites(space)}
        if not ops:
            raise SpaceError(f"{type(space).__name__} has no dynamic op: NNI's own profilers serve.")
        self.sites = [site_of(op) for op in ops.values()]
        recipes = recipes_for(ops, settings, "the profiler")
        context = copy.deepcopy(context)
        bind_own_input(context, ops, recipes)
        code = None if architecture is None else FixedArchitecture(torch.zeros(architecture.out_dim))  # once a network
        controller = copy.deepcopy(ChunkedController() if controller is None else controller)
        self.source = WeightSource(controller, context, self.sites, recipes, code)

    def _each(self, cost: Callable[[WeightSource, Site], float]) -> dict[str, float]:
        known: dict[Any, float] = {}
        for site in self.sites:
            kind = site.specs, self.source.recipes[site.name]
            if kind not in known:
                known[kind] = cost(self.source.restricted([site]), site)
        return {site.name: known[site.specs, self.source.recipes[site.name]] for site in self.sites}

    def flops(self) -> dict[str, float]:
        """Return the multiply-adds of each site for one context; scaling its values and adding the base is one each."""
        dim = self.source.code_dim
        code = None if dim is None else torch.zeros(1, dim)

        def cost(source: WeightSource, site: Site) -> float:
            values = site.num_generated if source.asked[site.name].specs else 0
            channels, _ = source.own_input.inputs.get(site.name, (0, 0)) if source.own_input is not None else (0, 0)
            encoded = channels * (source.context_dim or 0)
            return _flops_of(lambda: source.make([site], code)) + values + encoded

        return self._each(cost)

    def encoder_flops(self, example: Any) -> float:
        """Return the multiply-adds of encoding one context."""
        encoder: Any = self.source.of_context
        return 0.0 if encoder is None or example is None else _flops_of(lambda: encoder(example))

    def params(self) -> tuple[dict[str, float], int]:
        """Return the parameters of each site alone, and of what all share."""
        encoder, controller = _size(self.source.of_context), copy.deepcopy(self.source.controller)
        if controller is not None:
            controller.select([])
        shared = encoder + _size(controller)

        def own(source: WeightSource, site: Site) -> float:
            return _size(source) - (encoder if source.controller is None else shared)

        return self._each(own), shared


def _recipe_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Take out what says how weights come about."""
    return {name: config.pop(name) for name in ("base", "delta", "rank", "per_site") if name in config}


@torch.no_grad()
def _flops_of(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _count(space: ModelSpace, args: Any, price: _Price, config: Mapping[str, Any]) -> FlopsResult:
    """Count by NNI's formulas and ours; shapes are inferred without weights, and no running statistics move."""
    training = {module: module.training for module in space.modules()}
    token = _price.set(price)
    try:
        with _without_weights(space.eval()):
            return FlopsParamsProfiler(space, args, **config).flops_result
    finally:
        _price.reset(token)
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _without_weights(space: ModelSpace) -> Iterator[None]:
    """Let each dynamic op give an output of the right shape; what NNI's dry run chose serves for choices."""
    dry_run = space._frozen_context.value
    patched = [module for module in space.modules() if isinstance(module, (DynamicOp, ChoiceOp))]
    for module in patched:
        if not isinstance(module, ChoiceOp):
            _register_like(module)
        vars(module)["forward"] = _dry(module, dry_run)
    try:
        yield
    finally:
        for module in patched:
            del vars(module)["forward"]


def _dry(module: Any, dry_run: Mapping[str, Any]) -> Callable[..., Any]:
    op = module
    if isinstance(module, ChoiceOp):
        op = module.at({label: dry_run.get(label, values[0]) for label, values in module.candidates.items()})

    def forward(x: Any, *_: Any) -> Any:
        plain = x.elem if isinstance(x, ShapeTensor) else x
        y = op.compute(plain, {spec.name: plain.new_zeros(spec.shape) for spec in op.weight_specs()})
        return ShapeTensor(y) if isinstance(x, ShapeTensor) else y

    return forward


# Formulas


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


def _conv_flops(op: Any, y: Any, config: FlopsParamsCounterConfig) -> Any:
    taps = op.in_channels // op.groups * math.prod(op.kernel_size)
    return y[1:].numel() * (taps + (op.bias and config.count_bias))


def _count_conv(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    return FlopsResult(_conv_flops(op, y, config), 0)


def _count_transposed(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    taps = op.out_channels // op.groups * math.prod(op.kernel_size)  # that each input is sent to
    return FlopsResult(x[1:].numel() * taps + y[1:].numel() * (op.bias and config.count_bias), 0)


def _count_linear(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    return FlopsResult(y[1:].numel() * (op.in_features + (op.bias and config.count_bias)), 0)


def _count_norm(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    return FlopsResult(4 * x[1:].numel() * config.count_normalization, 0)  # NNI counts an affine BatchNorm so


def _count_separable(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
    inner = MutableShape(y[0], op.in_channels, *y[2:])
    flops = x[1:].numel() * config.count_activation
    flops = flops + inner.numel() // inner[0] * math.prod(op.kernel_size) + y[1:].numel() * op.in_channels
    normalised = config.count_normalization and not isinstance(op.norm, nn.Identity)
    affine = getattr(op.norm, "affine", True)
    return FlopsResult(
        flops + 2 * (1 + affine) * y[1:].numel() * normalised, _size(op.norm) * config.count_normalization
    )


_ONES = {"Dynamic" + name: (_conv_shape, _count_conv) for name in ("Conv1d", "Conv2d", "Conv3d")}
_ONES |= {f"DynamicConvTranspose{rank}d": (_transposed_shape, _count_transposed) for rank in (1, 2, 3)}
_ONES |= {name: (_same_shape, _count_norm) for name in ops.__all__ if "Norm" in name}
_ONES |= dict.fromkeys(("DynamicSepConv", "DynamicDilConv"), (_conv_shape, _count_separable))
_ONES["DynamicLinear"] = _linear_shape, _count_linear
Formulas = tuple[Callable[..., MutableShape], Callable[..., FlopsResult]]
FORMULAS: dict[type[DynamicOp], Formulas] = {getattr(ops, name): formulas for name, formulas in _ONES.items()}


def _register(cls: type[DynamicOp], formulas: Formulas) -> None:
    shape, count = formulas

    def priced(op: Any, x: Any, y: Any, config: FlopsParamsCounterConfig) -> FlopsResult:
        x, y = (one[0] if isinstance(one, tuple) else one for one in (x, y))
        return count(op, x, y, config) + _cost(op)

    register_shape_inference_formula(cls, shape)
    register_flops_formula(cls, priced)


def _cost(op: DynamicOp) -> FlopsResult:
    price = _price.get()
    if price is None:
        return FlopsResult(0, 0)
    return FlopsResult(price.flops.get(str(op.site), 0), price.params.get(str(op.site), 0))


_known: set[type] = set(FORMULAS)


def _register_like(op: DynamicOp) -> None:
    """Let an op of a class derived from one of ours be counted as that one.

    Raises
    ------
    SpaceError
        It is derived from none.
    """
    if type(op) not in _known:
        _register(type(op), _formulas_of(op))
        _known.add(type(op))


def _formulas_of(op: DynamicOp) -> Formulas:
    near = next((cls for cls in type(op).__mro__ if cls in FORMULAS), None)
    if near is None:
        raise SpaceError(
            f"{type(op).__name__} has no formula for its shape and multiply-adds. Give it one: add the class to "
            f"`nni_dynconv.profiler.FORMULAS`, as a pair `(shape(op, x), count(op, x, y, config))`."
        )
    return FORMULAS[near]


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


for _cls, _formulas in FORMULAS.items():
    _register(_cls, _formulas)
register_shape_inference_formula(ChoiceOp, _choice_shape)
register_flops_formula(ChoiceOp, _count_choice)
