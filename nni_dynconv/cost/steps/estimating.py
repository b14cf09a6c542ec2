"""What a training step of a network costs, told before any is run: multiply-adds, memory, and seconds by part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ...generation import DynamicNetwork
from ...settings import Recipe
from .imagining import BY_VALUES, Imagined, Reals, Step
from .machine import machine
from .pricing import prices_in, seen_in

__all__ = ["Share", "StepCost", "estimate", "estimate_and_warn"]

CHEAPER = (Recipe("learned", "low_rank", 4), Recipe("learned", "scale"))
"""What to take instead, the richest first."""
SHARE = "Samples that share a context (`index=`) have fewer made, and so have fewer sites."
MINOR = 5e-3
"""Seconds of a step that nobody needs to be warned of."""


@dataclass(frozen=True)
class Share:
    """What a part of a training step costs.

    Parameters
    ----------
    seconds
        Of forward, backward and update.
    multiply_adds
        Of the forward, for one sample.
    memory
        Bytes by which it raises the peak.
    """

    seconds: float
    multiply_adds: float
    memory: int


@dataclass(frozen=True)
class StepCost:
    """What a training step costs: forward, backward, and a plain step of the parameters.

    Parameters
    ----------
    batch
        Samples.
    static
        The step of the same network with ordinary weights, which all samples share.
    making
        What making weights adds: controller, context, base and delta, and their gradients.
    using
        What weights of the samples' own cost where they are used, beyond those that are shared.
    measuring
        Seconds that were spent on measuring this machine for it; what was measured before counts no more.
    ran
        Whether the network itself was run, because it decides by values.
    advice
        What to do where making weights costs more than the whole network that uses them; ``None`` where it does not.
    """

    batch: int
    static: Share
    making: Share
    using: Share
    measuring: float
    ran: bool = False
    advice: str | None = None

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.static.seconds + self.making.seconds + self.using.seconds

    @property
    def multiply_adds(self) -> float:
        """Of the forward, for one sample."""
        return self.static.multiply_adds + self.making.multiply_adds + self.using.multiply_adds

    @property
    def memory(self) -> int:
        """Bytes that a step makes and holds at one time, at most; parameters and optimizer stand beside it."""
        return self.static.memory + self.making.memory + self.using.memory

    @property
    def over_static(self) -> float:
        """How many times a step with ordinary weights it takes."""
        return self.seconds / self.static.seconds

    @property
    def is_dear(self) -> bool:
        """Whether making weights costs more than the whole network that uses them, and more than a little."""
        return self.making.seconds > max(self.static.seconds + self.using.seconds, MINOR)

    def __str__(self) -> str:
        head = (
            f"a training step of {self.batch} samples: {1e3 * self.seconds:.3g} ms, {self.over_static:.2f}x of static; "
            f"{self.memory / 1e6:,.1f} MB; {self.multiply_adds:,.0f} multiply-adds a sample"
        )
        lines = [head]
        for name in ("static", "making", "using"):
            one = getattr(self, name)
            lines.append(
                f"  {name:7} {1e3 * one.seconds:8.3g} ms  {one.seconds / self.seconds:4.0%}  "
                f"{one.memory / 1e6:+9,.1f} MB  {one.multiply_adds:+15,.0f} multiply-adds a sample"
            )
        return "\n".join(lines)


def estimate(network: DynamicNetwork, args: Sequence[Any], kwargs: Mapping[str, Any]) -> StepCost:
    """Estimate what a training step costs, on the machine, device and threads at hand.

    The step runs on tensors that have no values, so that nothing is computed; what it asks for is priced by what this
    machine takes for each operator, which is measured alone and on few samples, once in a process. Of a network that
    decides by values a copy is run.

    Raises
    ------
    ConfigError
        It is called with no tensor.
    """
    before = machine.spent
    batch = _batch_of(args, kwargs)
    try:
        ran, steps = False, _steps(Imagined(network, args, kwargs))
    except BY_VALUES:
        with torch.random.fork_rng(devices=[]):
            ran, steps = True, _steps(Imagined(network, args, kwargs, Reals()))
    full, given, static = (_priced(step, batch) for step in steps)
    parts = static, _beyond(full, given), _beyond(given, static)
    found = StepCost(batch, *parts, measuring=machine.spent - before, ran=ran)
    return replace(found, advice=_advice(found, network, args, kwargs)) if found.is_dear and not ran else found


def _advice(cost: StepCost, network: DynamicNetwork, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Name the richest recipe whose weights cost less to make than the network that uses them."""
    making, rest = cost.making.seconds, cost.static.seconds + cost.using.seconds
    told = (
        f"Making weights takes {1e3 * making:.3g} ms of a training step, more than the {1e3 * rest:.3g} ms of the "
        f"network that uses them."
    )
    one = Imagined(network, args, kwargs)
    seen, prices = seen_in(one), prices_in(one)
    if prices is None:
        return f"{told} {SHARE}"
    sites = [site for name, site in one.network.source.own_sites.items() if name in seen]
    for recipe in CHEAPER:
        spent = sum(prices.of(site, recipe, seen[site.name]).making for site in sites)
        if spent < (making / 2 if recipe is CHEAPER[-1] else min(making / 2, rest)):
            rank = f", rank={recipe.rank}" if recipe.delta == "low_rank" else ""
            cheaper = f"`base='learned', delta={recipe.delta!r}{rank}`"
            return f"{told} With {cheaper} it would take {1e3 * spent:.3g} ms."
    return f"{told} {SHARE}"


def estimate_and_warn(network: DynamicNetwork, args: Sequence[Any], kwargs: Mapping[str, Any]) -> StepCost:
    """Estimate, and warn whoever called the method that calls this where making weights is too dear."""
    found = estimate(network, args, kwargs)
    if found.advice is not None:
        warnings.warn(found.advice, stacklevel=3)
    return found


def _steps(one: Imagined) -> tuple[Step, Step, Step]:
    return one.step(), one.step_given(), one.step_static()


def _priced(step: Step, batch: int) -> Share:
    return Share(machine.seconds(step.operations, step.free), step.multiply_adds / batch, step.peak)


def _beyond(more: Share, less: Share) -> Share:
    return Share(more.seconds - less.seconds, more.multiply_adds - less.multiply_adds, more.memory - less.memory)


def _batch_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    first = next((one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.dim()), None)
    if first is None:
        raise ConfigError("`cost` needs what the network is called with, `cost(x, context)`, but was given no tensor.")
    return max(1, len(first))
