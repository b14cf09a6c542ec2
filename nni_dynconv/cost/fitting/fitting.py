"""The richest recipe of each site that a budget allows, by what a training step would cost."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ...generation import Controller, OwnInputContext, site_of, takes_of
from ...ops import DynamicOp
from ...samplers import Choices
from ...settings import Recipe
from ...sites import Scope, scope
from ..steps.imagining import BY_VALUES, Fakes, Step, leaves_of, run_step
from ..steps.machine import machine
from ..steps.pricing import Prices, Seen, seen_by
from .table import Fitted, SiteFitted

__all__ = ["fit", "recipes_from"]

RANKS = (16, 8, 4, 2, 1)
DRAWS = 64
"""Architectures that are looked at, at most, until each site has run in one."""
Sample = Mapping[str, Any]


class _Runs(NamedTuple):
    """What was seen of some architectures.

    Parameters
    ----------
    seen
        The inputs of each op, by site, in the first architecture that it ran in.
    steps
        Of each architecture, its static step in seconds, and its sites.
    """

    seen: dict[str, Seen]
    steps: list[tuple[float, list[str]]]


def fit(
    ops: Mapping[str, DynamicOp],
    recipes: Sequence[Recipe],
    frozen: Any,
    controller: Controller,
    context: nn.Module | None,
    code_dim: int | None,
    choices: Choices,
    example: Any,
    budget: float,
) -> tuple[list[Recipe], Fitted]:
    """Pick the recipes that were left open.

    At each site weights may add to the time of a training step ``budget`` times what its op takes with ordinary ones,
    and its share of what the rest of the network takes. So the whole stays within ``budget`` static steps in each
    architecture that was seen.

    Parameters
    ----------
    ops
        By site.
    recipes
        Of each; those with the delta ``auto`` are open.
    frozen
        Called with a sample: the network of one architecture, whose ops are named.
    controller, context, code_dim
        What makes the weights, not yet bound; the context's encoder; the length of the code.
    choices
        Of the space.
    example
        What the network is called with, as its one argument: ``x``, or ``(x, context)``.
    budget
        How many times the static step.

    Raises
    ------
    ConfigError
        There is no example, or the network cannot be run without values.
    """
    fakes = Fakes()
    try:
        runs = _look(ops, frozen, choices, example, context, fakes)
    except BY_VALUES as error:
        raise ConfigError(
            "`delta='auto'` runs the network on tensors without values, but it decides by values. Give the recipes "
            f"yourself, by `delta` and `per_site`. ({type(error).__name__}: {error})"
        ) from error
    prices = Prices(controller, code_dim, _sets(example, context, ops), fakes)
    open_ = {name: one for name, one in zip(ops, recipes, strict=True) if one.delta == "auto"}
    share = _share_of_the_rest(ops, runs, prices)
    found = {name: _picked(ops[name], one, runs.seen.get(name), prices, budget * share) for name, one in open_.items()}
    _spend_the_rest(found, ops, runs, prices, budget)
    picked = [found[name].recipe if name in found else one for name, one in zip(ops, recipes, strict=True)]
    return picked, Fitted(budget, tuple(found.values()))


def recipes_from(open_: Recipe) -> list[Recipe]:
    """Return what an open recipe may become, the richest first; a base that is asked for stays.

    Examples
    --------
    >>> [(one.base, one.delta) for one in recipes_from(Recipe("given", "auto"))][:2]
    [('given', 'full'), ('given', 'low_rank')]
    >>> recipes_from(Recipe("none", "auto"))[0].base, recipes_from(Recipe("none", "auto"))[-1]
    ('none', Recipe(base='learned', delta='none', rank=8))
    """
    base = open_.base if open_.has_base else "learned"
    ranks = [replace(open_, base=base, delta="low_rank", rank=rank) for rank in RANKS]
    rest = [replace(open_, base=base, delta=delta) for delta in ("scale", "none")]
    return [replace(open_, delta="full"), *ranks, *rest]


def _picked(op: DynamicOp, open_: Recipe, seen: Seen | None, prices: Prices, times: float) -> SiteFitted:
    site, candidates = site_of(op), recipes_from(open_)
    if seen is None:
        return SiteFitted(site.name, candidates[-2], 0.0, 0.0, 0.0, runs=False)
    allowed = times * prices.static(site, seen)
    fitting = bisect_left(
        candidates, True, key=lambda one: prices.added(site, one, seen) <= allowed
    )  # the dearest first
    recipe = candidates[min(fitting, len(candidates) - 1)]
    return SiteFitted(site.name, recipe, prices.static(site, seen), prices.added(site, recipe, seen), allowed)


def _spend_the_rest(
    found: dict[str, SiteFitted], ops: Mapping[str, DynamicOp], runs: _Runs, prices: Prices, budget: float
) -> None:
    """Let sites that are so small that any call is too dear for them be scaled, as far as all of the budget allows."""
    left = [
        budget * seconds - sum(found[name].price for name in names if name in found) for seconds, names in runs.steps
    ]
    for name, one in found.items():
        if not one.runs or one.recipe.delta != "none":
            continue
        scaled = replace(one.recipe, delta="scale")
        price = prices.added(site_of(ops[name]), scaled, runs.seen[name])
        places = [place for place, (_, names) in enumerate(runs.steps) if name in names]
        if all(left[place] >= price for place in places):
            found[name] = replace(one, recipe=scaled, price=price)
            for place in places:
                left[place] -= price


def _share_of_the_rest(ops: Mapping[str, DynamicOp], runs: _Runs, prices: Prices) -> float:
    """Return how many times a site's op its part of the whole static step is, in the architecture where it is least."""
    shares = []
    for seconds, names in runs.steps:
        own = sum(prices.static(site_of(ops[name]), runs.seen[name]) for name in names)
        shares.append(seconds / own if own else 1.0)
    return max(1.0, min(shares, default=1.0))


# Looking at architectures


def _look(
    ops: Mapping[str, DynamicOp], frozen: Any, choices: Choices, example: Any, context: Any, fakes: Fakes
) -> _Runs:
    runs = _Runs({}, [])
    wanted = context is not None and not isinstance(context, OwnInputContext)
    for sample in _samples(choices):
        seen, step = _run(fakes.copied(frozen(sample)).train(), ops, fakes.like(example), wanted, fakes)
        runs.seen.update({name: one for name, one in seen.items() if name not in runs.seen})
        runs.steps.append((machine.seconds(step.operations, step.free), list(seen)))
        if len(runs.seen) == len(ops):
            break
    return runs


def _run(
    network: nn.Module, ops: Mapping[str, DynamicOp], example: Any, wanted: bool, fakes: Fakes
) -> tuple[dict[str, Seen], Step]:
    """Run two steps of one architecture with ordinary weights: to see inputs, and to see all of it."""
    called = takes_of(network).call((example,), {}, wanted)
    with fakes.inside():
        made = {name: leaves_of(site_of(op)) for name, op in ops.items()}

        def forward() -> Any:
            with scope.enter(Scope(network, lambda name, alone: {name: made[name]})):
                return network(*called.args, **called.kwargs)

        return seen_by(network, forward), run_step(forward, network.parameters)


def _samples(choices: Choices) -> Iterator[Sample]:
    """Yield architectures: each candidate in turn, of all labels at once, then drawn ones."""
    if not choices:
        yield {}
        return
    draw, most = random.Random(0), max(len(one) for one in choices.values())  # noqa: S311 (it need not be secret)
    for turn in range(DRAWS):
        picked = {
            name: one.candidates[turn % len(one)] if turn < most else draw.choice(one.candidates)
            for name, one in choices.items()
        }
        if choices.broken(picked) is None:
            yield picked


def _sets(example: Any, context: nn.Module | None, ops: Mapping[str, DynamicOp]) -> int:
    """Return how many sets of weights a step with an example makes; 0 where all samples share one."""
    if context is None:
        return 0
    own = isinstance(context, OwnInputContext)
    given = example if own or type(example) not in (tuple, list) else example[-1]
    first = next((one for one in pytree.tree_leaves(given) if isinstance(one, Tensor) and one.dim()), None)
    sets = 1 if first is None else len(first)
    return 0 if sets == 1 else sets
