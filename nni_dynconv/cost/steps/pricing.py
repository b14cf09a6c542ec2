"""What each recipe of each site would cost in a training step: making its weights, and using them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...generation import Controller, Decision, WeightMaker
from ...ops import DynamicOp
from ...settings import Recipe
from ...sites import Site
from .imagining import Fakes, Imagined, Step, leaf_of, run_step
from .machine import machine

__all__ = ["Price", "Prices", "Seen", "prices_in", "seen_by", "seen_in"]


@dataclass(frozen=True)
class Price:
    """Seconds of a training step.

    Parameters
    ----------
    making
        Of the site's weights, as if they were made by themselves; sites share a little.
    using
        Of the op with them.
    """

    making: float
    using: float


class Seen(NamedTuple):
    """An op, and the inputs of one step, without values."""

    op: DynamicOp
    inputs: list[Tensor]


class Prices:
    """What recipes cost at sites, each counted once for all sites that are alike.

    Parameters
    ----------
    controller
        Makes the weights; copied, bound or not.
    code_dim
        Length of the code that weights are made from, or ``None``.
    sets
        Sets of weights in a step: the batch, or 0 where all samples share one.
    fakes
        Makes tensors without values.
    """

    def __init__(self, controller: Controller, code_dim: int | None, sets: int, fakes: Fakes):
        self.controller, self.code_dim, self.sets, self.fakes = controller, code_dim, sets, fakes
        self._known: dict[Any, Price] = {}

    def of(self, site: Site, recipe: Recipe, seen: Seen) -> Price:
        """Return what a site costs in a step with weights by a recipe."""
        shapes = tuple(tuple(one.shape) for one in seen.inputs)
        key = (site.specs, site.op, repr(seen.op), recipe, shapes)
        if key not in self._known:
            with self.fakes.inside():
                steps = self._steps(site, recipe, seen)
            self._known[key] = Price(*(machine.seconds(one.operations, one.free) if one else 0.0 for one in steps))
        return self._known[key]

    def static(self, site: Site, seen: Seen) -> float:
        """Return the seconds of its op with weights that all samples share."""
        return self.of(site, Recipe("learned", "none"), seen).using

    def added(self, site: Site, recipe: Recipe, seen: Seen) -> float:
        """Return the seconds by which a recipe is dearer than ordinary weights."""
        price = self.of(site, recipe, seen)
        return max(0.0, price.making + price.using - self.static(site, seen))

    def _steps(self, site: Site, recipe: Recipe, seen: Seen) -> tuple[Step | None, Step]:
        """Run the making, where there is any, and the using."""
        maker, code = WeightMaker(self._unbound(), [site], [recipe], self.code_dim), self._code()
        made: dict[str, Any] = {}

        def make() -> Any:
            made.update(maker.make_factored([site], code)[0])
            return list(made.values())

        making = run_step(make, lambda: ())
        leaves = {name: leaf_of(one) for name, one in made.items()}
        inputs = [one.detach().requires_grad_(one.is_floating_point()) for one in seen.inputs]
        using = run_step(lambda: [seen.op(x, leaves) for x in inputs], lambda: ())
        return None if recipe.delta == "none" else making, using

    def _unbound(self) -> Controller:
        controller = self.fakes.copied(self.controller)
        controller.bound = False
        return controller

    def _code(self) -> Tensor | None:
        if self.code_dim is None:
            return None
        return torch.ones(*([self.sets] if self.sets else []), self.code_dim, requires_grad=True)


def seen_by(network: nn.Module, run: Callable[[], Any]) -> dict[str, Seen]:
    """Return the inputs of the dynamic ops of a network that something runs, by site."""
    seen: dict[str, Seen] = {}

    def note(op: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        assert isinstance(op, DynamicOp)
        x = args[0] if args else kwargs.get(op.input_name)
        if isinstance(x, Tensor):
            seen.setdefault(str(op.site), Seen(op, [])).inputs.append(x.detach())

    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in network.modules()
        if isinstance(module, DynamicOp)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def seen_in(one: Imagined) -> dict[str, Seen]:
    """Return the inputs of each op in a step of an imagined network."""
    with one.inside():
        return seen_by(one.network, one.static_run())


def prices_in(one: Imagined) -> Prices | None:
    """Return what other recipes would cost in an imagined network; ``None`` where no context's controller makes any."""
    source = one.network.source
    if source.controller is None or source.own_input is not None:
        return None
    with one.inside():
        called = one.network.takes.call(one.args, one.kwargs, source.of_context is not None)
        opened = source.open(Decision(), called.context, None, called.index)
        sets = opened.batch() if opened.blocks is None else len(opened.blocks.used)
    return Prices(source.controller, source.code_dim, sets or 0, one.fakes)
