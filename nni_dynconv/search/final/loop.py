"""Evolution in a loop of one's own: over any choices, by any loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...samplers import Choices, check_sample
from ...settings import StrategySettings, check, check_final
from ..costing import Costs
from ..ranking.contest import Sample
from .contenders import Compared, Contender
from .evolution import Breeding, evolved
from .starting import fitting

__all__ = ["evolve"]


def evolve(
    choices: Choices,
    loss: Callable[[Sample], float],
    *,
    costs: Mapping[str, Any] | None = None,
    objectives: Sequence[str] = (),
    budget: Mapping[str, float] | None = None,
    population: int = 20,
    evaluations: int = 400,
    mutation: float = 0.1,
    crossover: float = 0.5,
    start: Sequence[Mapping[str, Any]] = (),
    seed: int | None = None,
) -> Compared:
    """Search architectures by evolution, after a training in a plain loop; what ``final_search: evolution`` runs.

    Parameters
    ----------
    choices
        ``mutator.choices``: labels, candidates and constraints.
    loss
        Called with a sample; lower is better, no number is worst. ``lambda sample: -evaluator.score(sample)`` of a
        :class:`~nni_dynconv.SupernetEvaluator` gathers BatchNorm's statistics anew for each.
    costs
        By name: called with a sample, or one of NNI's profilers, such as a
        :class:`~nni_dynconv.DynamicFlopsProfiler`.
    objectives
        Names of the costs that count besides the loss.
    budget
        The most that an architecture may have of a cost: others are not measured.
    population, evaluations, mutation, crossover
        Options of the same names of :class:`~nni_dynconv.search.strategy.DynamicStrategy`.
    start
        Architectures to start with, such as ``mutator.export()``; the rest of the population is drawn.
    seed
        Decides all; ``None`` draws one. The global generator is left alone.

    Returns
    -------
    All that was measured, in order; ``.front``, and ``.best_first("loss")`` or ``.best_first("knee")``.

    Raises
    ------
    ConfigError
        An option is out of its range, or a cost is named that is not given.
    SampleError
        ``start`` has one that is none of the space.
    RankError
        No architecture was found that keeps the budget.

    Examples
    --------
    >>> from nni_dynconv.samplers import Choice
    >>> choices = Choices({f"op{place}": Choice(f"op{place}", (1, 2, 3, 4)) for place in range(6)})
    >>> found = evolve(choices, lambda sample: float(sum(sample.values())), evaluations=200, seed=0)
    >>> len(found.contenders), found.best_first("loss")[0].loss
    (200, 6.0)
    """
    named = {"objectives": list(objectives), "budget": dict(budget or {})}
    sizes = {"population": population, "evaluations": evaluations, "mutation": mutation, "crossover": crossover}
    check_final(check(StrategySettings, {**sizes, **named}, "`evolve`"), "`evolve`", costs or ())
    for one in start:
        check_sample(one, choices)
    priced = Costs(costs, objectives, budget)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    breeding = Breeding(choices, generator, priced.fits, mutation, crossover)
    first = fitting([dict(one) for one in start], min(population, evaluations), priced, breeding, more=True)

    def measure(samples: list[Sample]) -> list[Contender]:
        return [Contender(one, float(loss(one)), priced.of(one)) for one in samples]

    return Compared(evolved(breeding, measure, first, population, evaluations, priced.objectives), priced.objectives)
