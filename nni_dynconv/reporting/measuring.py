"""A saved network looked into: what it costs, and which weights it makes for the contexts of its example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from .. import cost
from ..export import Shown
from ..functional import form_all
from ..generation import Call, DynamicNetwork, Example
from ..sites import count_of
from .data import Cost, Network, Site
from .drawing import coloured, in_page, laid_out

__all__ = ["cost_of", "look_into", "weights_of"]

MOST_VALUES = 1 << 24
"""No more values than these are made at once to be looked at."""
TOLD = 4


def look_into(network: DynamicNetwork, shown: Shown) -> Network:
    """Return what a network costs, and its weights for the contexts of its example.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    shown
        Its example; contexts are put into an order in which they change little by little.
    """
    call = _ordered(network, shown.call)
    made = weights_of(network, call)
    sites = tuple(_site(network, name, tensors) for name, tensors in made.items() if tensors)
    sets = max((len(one.pictures) for one in sites), default=0)
    takes, gives = (
        [f"{one.name} {' '.join(map(str, one.shape))} {one.dtype}" for one in ports]
        for ports in (shown.inputs, shown.made)
    )
    return Network(cost_of(network, call), sites, tuple(_words(call.context, sets)), shown.real, takes, gives)


@torch.no_grad()
def weights_of(network: DynamicNetwork, call: Call) -> dict[str, dict[str, Tensor]]:
    """Return the tensors that a network makes for a call, by site: ``(*shape)``, or ``(B, *shape)``.

    Sites stand in the order in which they are made.
    """
    found: dict[str, dict[str, Tensor]] = {}

    def keep(sites: Any, made: list[dict[str, Any]]) -> None:
        for site, one in zip(sites, made, strict=True):
            found[site.name] = {name: tensor.detach() for name, tensor in form_all(one).items()}

    with _watched(network, "make_factored", lambda args, made: keep(args[0], made)):
        run(network, call)
    return found


def run(network: DynamicNetwork, call: Call) -> Any:
    """Call a network as its example was."""
    more = {name: one for name, one in (("context", call.context), ("index", call.index)) if one is not None}
    return network(*call.args, **call.kwargs, **more)


@contextmanager
def _watched(network: DynamicNetwork, method: str, note: Callable[[tuple[Any, ...], Any], None]) -> Iterator[None]:
    """For a block, tell of each call of a method of what makes the weights."""
    source = network.source
    own = getattr(source, method)

    def watched(*args: Any) -> Any:
        made = own(*args)
        note(args, made)
        return made

    setattr(source, method, watched)
    try:
        yield
    finally:
        delattr(source, method)


# Costs


def cost_of(network: DynamicNetwork, call: Call) -> Cost:
    """Return what a network costs for one sample of a call."""
    one = Example.of(call).drawn(1)
    source = network.source
    parts = [part for part in (source.controller, source.encoder) if part is not None]
    stored = sum(value.numel() for part in parts for value in part.parameters())
    made = sum(site.num_generated for site in source.sites.values())
    counted = _multiply_adds(network, one)
    seconds = None if counted is None else cost.seconds(lambda: run(network, one))
    total, making = counted or (None, None)
    return Cost(total, making, sum(value.numel() for value in network.parameters()), stored, made, seconds)


@torch.no_grad()
def _multiply_adds(network: DynamicNetwork, call: Call) -> tuple[int, int] | None:
    """Return the multiply-adds of a call, and those of making weights; ``None`` where the network does not take it."""
    making = 0
    try:
        with FlopCounterMode(display=False) as counter, _counting(network, counter) as told:
            run(network, call)
        making = sum(told)
    except (RuntimeError, ValueError, LookupError):
        return None
    return counter.get_total_flops() // 2, making // 2


@contextmanager
def _counting(network: DynamicNetwork, counter: FlopCounterMode) -> Iterator[list[int]]:
    """For a block, count what encoding contexts and making weights take."""
    source, told = network.source, list[int]()
    own = {name: getattr(source, name) for name in ("_code", "make_factored")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            before = counter.get_total_flops()
            made = own[name](*args)
            told.append(counter.get_total_flops() - before)
            return made

        return call

    for name in own:
        setattr(source, name, counted(name))
    try:
        yield told
    finally:
        for name in own:
            delattr(source, name)


# Sites


def _site(network: DynamicNetwork, name: str, tensors: Mapping[str, Tensor]) -> Site:
    site, recipe = network.source.sites[name], network.source.recipes[name]
    spec = max(site.specs, key=lambda one: one.numel)
    weight = tensors[spec.name].double().numpy()
    alone = weight.ndim == len(spec.shape)
    sets = weight[None] if alone else weight
    most = float(np.abs(sets[np.isfinite(sets)]).max(initial=0.0))
    laid = [laid_out(one) for one in sets]
    pictures = tuple(in_page(coloured(picture, most)) for picture, _ in laid)
    dependence = None if alone else _dependence(sets)
    shape, kernels = tuple(spec.shape), laid[0][1]
    fixed = network.source.encoder is None or not network.source.asked[name].specs
    how = (recipe.base, recipe.delta, dependence, fixed)
    return Site(name, site.op, spec.name, shape, site.num_generated, *how, pictures, kernels)


def _dependence(sets: np.ndarray) -> float:
    """Return how far weights differ between contexts, by how large they are."""
    size = float(np.sqrt(np.mean(sets**2)))
    return float(np.sqrt(np.mean(np.var(sets, axis=0)))) / size if size else 0.0


# Contexts


@torch.no_grad()
def _ordered(network: DynamicNetwork, call: Call) -> Call:
    """Return a call with its samples in the order of their contexts' codes along what varies most, and not too many."""
    encoder, count = network.source.of_context, count_of(call.context)
    if encoder is None or not count or call.index is not None:
        return call
    code = encoder(call.context)
    if code.dim() != 2 or code.shape[0] != count:
        return call
    made = sum(site.num_generated for site in network.source.sites.values())
    centred = code.double() - code.double().mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    kept = max(1, min(count, MOST_VALUES // max(made, 1)))
    order = along.argsort()[torch.linspace(0, count - 1, kept).round().long()]

    def turned(one: Tensor) -> Tensor:
        return one[order] if one.dim() and one.shape[0] == count else one

    return Call(*pytree.tree_map_only(Tensor, turned, tuple(call)))


def _words(context: Any, sets: int) -> Iterator[str]:
    """Say what each of the contexts is: its place, and its numbers where they are few."""
    for place in range(sets):
        values = ""
        if isinstance(context, Tensor) and context.dim() == 2 and context.shape[0] == sets:
            told = ", ".join(f"{float(one):.3g}" for one in context[place, :TOLD])
            values = f": {told}{', ...' if context.shape[1] > TOLD else ''}"
        yield f"{'sample' if context is None else 'context'} {place + 1} of {sets}{values}"
