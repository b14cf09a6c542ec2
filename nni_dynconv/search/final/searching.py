"""The last step of a search: architectures are drawn or bred, measured with the supernet's weights, and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...errors import RankError
from ...samplers import distributed
from ...settings import StrategySettings
from ...supernet import DynamicWeightMutator
from ..costing import Called, Costs, called_on, costs_of
from ..ranking.contest import Measured, Sample, Task, as_it_is, generated_losses
from .contenders import Compared, Contender
from .evolution import Breeding, evolved
from .proxies import best_by_proxy, proxy_scores
from .starting import fitting

__all__ = ["FinalSearch", "is_plain"]


def is_plain(settings: StrategySettings) -> bool:
    """Whether a search ends with the sampler's draws, by their losses alone."""
    return settings.final_search == "draws" and not (settings.objectives or settings.budget or settings.proxy)


@dataclass
class FinalSearch:
    """Measures architectures with the supernet's weights.

    Parameters
    ----------
    mutator
        Of a trained supernet.
    task
        What they are measured by.
    settings
        Where they come from, and what counts.
    measured
        Calls what measures one, and decides what becomes of an error.
    tried
        The same for what is measured for more than its number, so that it has to be done again after a kill.
    own_costs
        By name, beside the package's own: called with a sample, or NNI's profilers.
    """

    mutator: DynamicWeightMutator
    task: Task
    settings: StrategySettings
    measured: Measured = as_it_is
    tried: Measured = as_it_is
    own_costs: Mapping[str, Any] = field(default_factory=dict)

    def run(self, draw: Callable[[int], list[Sample]], most: int | None = None) -> Compared:
        """Draw or breed architectures, measure them, and return them with their costs.

        Parameters
        ----------
        draw
            Returns distinct architectures that the sampler draws, of so many draws.
        most
            How many are measured at most, whatever the settings say.

        Raises
        ------
        RankError
            None is within the budget.
        """
        settings, breeds = self.settings, self.settings.final_search == "evolution"
        evaluations = min(settings.evaluations if breeds else settings.contenders, most or math.inf)
        wanted = int(min(settings.population, evaluations) if breeds else evaluations)
        looked_at = wanted * (1 if settings.proxy is None else settings.proxy_draws)
        drawn = draw(looked_at)
        self._prepare(drawn)
        start = fitting(drawn, looked_at, self.costs, self.breeding, more=breeds)
        start = self._sieved(start, wanted)
        if not breeds:
            return Compared(self.measure(start), self.costs.objectives)
        sizes = settings.population, int(evaluations)
        found = evolved(self.breeding, self.measure, start, *sizes, self.costs.objectives)
        return Compared(found, self.costs.objectives)

    def _prepare(self, drawn: Sequence[Sample]) -> None:
        settings, mutator = self.settings, self.mutator
        self.called = self._called(drawn) if self._runs_it() else None
        known = {} if self.called is None else costs_of(mutator, *self.called.args, **self.called.kwargs)
        self.costs = Costs({**known, **self.own_costs}, settings.objectives or (), settings.budget, self.measured)
        how = self.costs.fits, settings.mutation, settings.crossover
        self.breeding = Breeding(mutator.choices, mutator.sampler.generator, *how)

    def _runs_it(self) -> bool:
        """Whether an architecture has to be run by itself, outside of the evaluator's step."""
        names = {*(self.settings.objectives or ()), *(self.settings.budget or ())} - set(self.own_costs)
        return bool(names) or self.settings.proxy is not None

    def _called(self, drawn: Sequence[Sample]) -> Called:
        found: list[Called] = []

        def call(sample: Sample) -> float:
            found.append(called_on(self.mutator, self.task, sample))
            return 0.0

        for one in drawn:
            self.tried(one, partial(call, one))
            if found:
                return found[0]
        raise RankError(f"None of {len(drawn)} architectures runs: each of them raised an error.")

    def _sieved(self, samples: list[Sample], wanted: int) -> list[Sample]:
        if self.settings.proxy is None or self.called is None or len(samples) <= wanted:
            return samples
        scores = proxy_scores(self.settings.proxy, self.mutator, samples, self.called, self.measured)
        return best_by_proxy(samples, scores, wanted)

    def measure(self, samples: list[Sample]) -> list[Contender]:
        """Measure loss and costs of some architectures; one without all of these has no loss."""
        losses = generated_losses(self.mutator, samples, self.task, self.measured)
        return [self._contender(*pair) for pair in zip(samples, map(distributed.mean, losses), strict=True)]

    def _contender(self, sample: Sample, loss: float) -> Contender:
        costs = self.costs.of(sample)
        return Contender(sample, math.nan if any(map(math.isnan, costs.values())) else loss, costs)
