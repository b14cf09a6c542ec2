"""NNI's profilers for dynamic spaces: what each architecture computes and stores, with what makes its weights.

They are NNI's ``ExpressionProfiler`` and go wherever one goes. What each op costs by itself is in ``formulas.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler
from nni.nas.profiler.pytorch.flops import FlopsParamsProfiler, FlopsResult
from nni.nas.profiler.pytorch.utils import ShapeTensor
from torch import nn

from ..errors import SpaceError
from ..generation import (
    ArchitectureEncoder,
    ChunkedController,
    Controller,
    FixedArchitecture,
    PatchContext,
    WeightSource,
    bind_own_input,
    recipes_for,
    site_of,
)
from ..ops import ChoiceOp, DynamicOp
from ..sites import Site
from ..supernet import is_supernet, name_sites
from .formulas import FORMULAS, Price, priced, register_like
from .running import multiply_adds

__all__ = ["FORMULAS", "DynamicFlopsProfiler", "DynamicNumParamsProfiler"]


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
        ``base``, ``delta``, ``rank``, ``per_site``, as of :class:`~nni_dynconv.DynamicWeightMutator`; and
        ``count_bias``, ``count_normalization``, ``count_activation``, as of NNI's.

    Raises
    ------
    SpaceError
        The space is a supernet already, has no dynamic op, or one without a formula.

    Notes
    -----
    Each site is counted as if its weights were made by themselves. Made together, as they are, they share what a
    controller computes once a call: the count is a little high.

    A low-rank weight is counted as formed and then used like any other. That runs where all samples share the weights,
    in an export, and in a convolution of one sample, and depends on no batch and no machine, as what bounds a search
    should. Else the planner may apply the factors of the samples (:class:`~nni_dynconv.functional.LowRank`):
    :func:`~nni_dynconv.functional.explain` counts what one call then runs, torch's ``FlopCounterMode`` all calls.

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
        result = _count(space, args, Price(price, {}), config)
        self.expression = result.flops + contexts_per_sample * made.encoder_flops(example)


class DynamicNumParamsProfiler(ExpressionProfiler):
    """Parameters that each architecture of a dynamic space stores: its own, and those that make its weights.

    It is the number of parameters of what :meth:`~nni_dynconv.DynamicWeightMutator.freeze` returns: controller
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
        self.expression = _count(space, args, Price({}, own), config).params + shared


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
            kind = self._kind(site)
            if kind not in known:
                known[kind] = cost(self.source.restricted([site]), site)
        return {site.name: known[self._kind(site)] for site in self.sites}

    def _kind(self, site: Site) -> Any:
        return site.specs, self.source.recipes[site.name], site.patch_grid

    def flops(self) -> dict[str, float]:
        """Return the multiply-adds of each site for one context; scaling its values and adding the base is one each."""
        dim = self.source.code_dim

        def cost(source: WeightSource, site: Site) -> float:
            sets = self._patches(site)  # of one sample
            code = None if dim is None else torch.zeros(sets, dim)
            values = sets * site.num_generated if source.asked[site.name].specs else 0
            channels, _ = source.own_input.inputs.get(site.name, (0, 0)) if source.own_input is not None else (0, 0)
            encoded = sets * channels * (source.context_dim or 0)
            return multiply_adds(lambda: source.make([site], code)) + values + encoded

        return self._each(cost)

    def _patches(self, site: Site) -> int:
        """Return for how many patches of a sample sets are made at a site: one where codes have no places."""
        places = self.source.own_input is not None or isinstance(self.source.encoder, PatchContext)
        return math.prod(site.patch_grid or ()) if places else 1

    def encoder_flops(self, example: Any) -> float:
        """Return the multiply-adds of encoding one context."""
        encoder: Any = self.source.of_context
        return 0.0 if encoder is None or example is None else multiply_adds(lambda: encoder(example))

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


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _count(space: ModelSpace, args: Any, price: Price, config: Mapping[str, Any]) -> FlopsResult:
    """Count by NNI's formulas and ours; shapes are inferred without weights, and no running statistics move."""
    training = {module: module.training for module in space.modules()}
    try:
        with priced(price), _without_weights(space.eval()):
            return FlopsParamsProfiler(space, args, **config).flops_result
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _without_weights(space: ModelSpace) -> Iterator[None]:
    """Let each dynamic op give an output of the right shape; what NNI's dry run chose serves for choices."""
    dry_run = space._frozen_context.value
    patched = [module for module in space.modules() if isinstance(module, (DynamicOp, ChoiceOp))]
    for module in patched:
        if not isinstance(module, ChoiceOp):
            register_like(module)
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
