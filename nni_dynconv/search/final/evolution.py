"""Evolution of architectures whose losses a trained supernet tells: selection, crossover, mutation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...samplers import Choices
from ..ranking.contest import Sample
from .contenders import Compared, Contender
from .fronts import order

__all__ = ["Breeding", "evolved"]

TRIES = 50  # to get a child that was not measured yet, by crossover and mutation, and then by chance


@dataclass
class Breeding:
    """How architectures come out of others.

    Parameters
    ----------
    choices
        Of the space, with its constraints.
    generator
        Decides all that is left to chance.
    fits
        Whether an architecture may be measured at all; asked of those that keep the constraints.
    mutation
        Probability that a choice is made anew.
    crossover
        Share of children that have two parents.
    """

    choices: Choices
    generator: torch.Generator
    fits: Callable[[Sample], bool] = field(default=lambda sample: True)
    mutation: float = 0.1
    crossover: float = 0.5

    def allowed(self, sample: Sample) -> bool:
        """Whether an architecture keeps the constraints and fits."""
        return self.choices.broken(sample) is None and self.fits(sample)

    def anyone(self) -> Sample:
        """Return an architecture with every candidate equally probable, whether allowed or not."""
        return {label: one.candidates[self.below(len(one))] for label, one in self.choices.items()}

    def child(self, parents: Callable[[], Sample]) -> Sample:
        """Return a child of one or two parents, whether allowed or not; of one, at least one choice is made anew."""
        child, two = dict(parents()), self._happens(self.crossover)
        if two:
            other = parents()
            child = {label: value if self._happens(0.5) else other[label] for label, value in child.items()}
        open_labels = [label for label, one in self.choices.items() if len(one) > 1]
        anew = [label for label in open_labels if self._happens(self.mutation)]
        if not anew and not two and open_labels:
            anew = [open_labels[self.below(len(open_labels))]]
        return {**child, **{label: self._another(label, child[label]) for label in anew}}

    def _another(self, label: str, value: Any) -> Any:
        choice = self.choices[label]
        return choice.candidates[(choice.index(value) + 1 + self.below(len(choice) - 1)) % len(choice)]

    def below(self, count: int) -> int:
        """Return a whole number from 0 to below a count."""
        return int(torch.randint(count, (), generator=self.generator))

    def _happens(self, probability: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < probability


def evolved(
    breeding: Breeding,
    measure: Callable[[list[Sample]], list[Contender]],
    start: Sequence[Sample],
    population: int,
    evaluations: int,
    objectives: Sequence[str] = (),
) -> list[Contender]:
    """Return all architectures that an evolution measured, in their order; none twice.

    The start is measured. Then as many children as there are parents are made and measured, and the best of parents and
    children are the next parents. A parent is the better of two that are drawn. Better is: of an earlier front, or on
    the same one with more room around it; with one number to go by, the lower one.

    Parameters
    ----------
    breeding
        Makes children.
    measure
        Measures some architectures.
    start
        The first parents, as many as the population or fewer.
    population
        How many parents there are.
    evaluations
        How many are measured at most: fewer, where no more are found that are allowed and new.
    objectives
        Costs that count besides the loss.

    References
    ----------
    Guo et al., Single path one-shot neural architecture search with uniform sampling, ECCV 2020, section 3.4: evolution
    over a trained supernet, with crossover and mutation. Deb et al., NSGA-II, 2002: selection by fronts.

    Notes
    -----
    In Guo et al. half of the children are mutations, and parents are drawn among the ten best.
    """
    seen = {_key(one) for one in start[:evaluations]}
    parents = everyone = measure(list(start[:evaluations]))
    while len(everyone) < evaluations:
        ranked = _best(parents, objectives)
        children = list(_children(breeding, ranked, seen, min(population, evaluations - len(everyone))))
        if not children:
            break
        measured = measure(children)
        everyone = everyone + measured
        parents = _best([*ranked, *measured], objectives)[:population]
    return everyone


def _best(contenders: Sequence[Contender], objectives: Sequence[str]) -> list[Contender]:
    return [contenders[place] for place in order(Compared(contenders, tuple(objectives)).points())]


def _children(breeding: Breeding, ranked: Sequence[Contender], seen: set[str], count: int) -> Iterator[Sample]:
    """Yield new architectures that are allowed; fewer, where none is found."""

    def parent() -> Sample:
        return ranked[min(breeding.below(len(ranked)), breeding.below(len(ranked)))].sample

    ways: list[Callable[[], Sample]] = [lambda: breeding.child(parent)] * TRIES + [breeding.anyone] * TRIES
    for _ in range(count):
        tried = (dict(way()) for way in ways)
        child = next((one for one in tried if _key(one) not in seen and breeding.allowed(one)), None)
        if child is None:
            return
        seen.add(_key(child))
        yield child


def _key(sample: Mapping[str, Any]) -> str:
    return json.dumps(sample, sort_keys=True)
