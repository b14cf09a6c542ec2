"""What the architectures of a supernet cost, each counted or measured once, and which of them fit a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...cost import multiply_adds, seconds
from ...errors import ConfigError
from ...samplers import distributed
from ...supernet import DynamicWeightMutator
from ..ranking.contest import Measured, Sample, as_it_is
from .forwards import Called

__all__ = ["Cost", "Costs", "costs_of"]

Cost = Callable[[Sample], float]


class Costs:
    """Costs by name, each asked for once an architecture; of several processes it is the mean.

    Parameters
    ----------
    cost_of
        By name: called with a sample, or one of NNI's profilers.
    objectives
        Which of them count besides the loss.
    budget
        The most that an architecture may have of some.
    measured
        Calls what measures one, and decides what becomes of an error.

    Examples
    --------
    >>> costs = Costs({"width": lambda sample: 2.0 * sample["width"]}, budget={"width": 20.0})
    >>> costs.fits({"width": 8}), costs.fits({"width": 16}), costs.of({"width": 16})
    (True, False, {'width': 32.0})
    """

    def __init__(
        self,
        cost_of: Mapping[str, Any] | None = None,
        objectives: Iterable[str] = (),
        budget: Mapping[str, float] | None = None,
        measured: Measured = as_it_is,
    ):
        self.objectives, self.budget, self._measured = tuple(objectives), dict(budget or {}), measured
        known = {name: getattr(one, "profile", one) for name, one in (cost_of or {}).items()}
        names = dict.fromkeys((*self.objectives, *self.budget))
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"Nothing says what `{name}` of an architecture is; there is {list(known) or 'none'}."
                )
        self._cost_of: dict[str, Cost] = {name: known[name] for name in names}
        self._found: dict[str, dict[str, float]] = {}

    def of(self, sample: Sample) -> dict[str, float]:
        """Return the costs of an architecture; one that raises, and may be left out, costs no number."""
        found = self._found.setdefault(json.dumps(sample, sort_keys=True), {})
        for name in self._cost_of:
            self._ask(found, name, sample)
        return dict(found)

    def _ask(self, found: dict[str, float], name: str, sample: Sample) -> float:
        if name not in found:
            found[name] = distributed.mean(self._measured(sample, lambda: float(self._cost_of[name](sample))))
        return found[name]

    def fits(self, sample: Sample) -> bool:
        """Whether an architecture keeps the budget."""
        found = self._found.setdefault(json.dumps(sample, sort_keys=True), {})
        return all(self._ask(found, name, sample) <= most for name, most in self.budget.items())

    def excess(self, sample: Sample) -> float:
        """Return by which share an architecture is over the budget, summed over its costs; 0 where it fits."""
        found = self._found.setdefault(json.dumps(sample, sort_keys=True), {})
        return sum(max(0.0, self._ask(found, name, sample) / most - 1) for name, most in self.budget.items())


def costs_of(mutator: DynamicWeightMutator, *inputs: Any, **options: Any) -> dict[str, Cost]:
    """Return what architectures of a supernet cost, each called with a sample, by their names in a YAML.

    Parameters
    ----------
    mutator
        Of the supernet; one without a sampler of its own serves too.
    *inputs, **options
        What its network is called with, such as ``x, context=c``, to count and to time it.

    Returns
    -------
    ``multiply_adds`` of one sample's convolutions and linear maps, making weights included, which a batch may share;
    ``parameters`` of a frozen copy; ``generated``, the values that are made for one context; ``seconds`` of the call in
    evaluation mode, the shortest of five.

    Examples
    --------
    >>> costs = costs_of(mutator, x, context=c)  # doctest: +SKIP
    >>> costs["multiply_adds"](mutator.export())  # doctest: +SKIP
    """
    called = Called(inputs, options)
    return {
        "multiply_adds": lambda sample: called.run(mutator, sample, multiply_adds) / called.samples,
        "parameters": lambda sample: sum(one.numel() for one in mutator.freeze(sample).parameters()),
        "generated": lambda sample: mutator.plan(sample).num_generated,
        "seconds": lambda sample: called.run(mutator, sample, seconds),
    }
