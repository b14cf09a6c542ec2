"""Uniform sampling, which remembers what was good."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch

from .base import Sampler, Walk

__all__ = ["RandomSampler"]


class RandomSampler(Sampler):
    """Draw every candidate of every label with equal probability.

    :meth:`best` is the sample with the best mean reward among those observed; without any, what would be drawn next. A
    reward that is not a finite number, or larger than 1e30, is left out with a warning.

    Parameters
    ----------
    seed
        Decides the draws; ``None`` draws a seed. The global generator is left alone.

    References
    ----------
    Guo et al., Single path one-shot neural architecture search with uniform sampling, ECCV 2020; Li and Talwalkar,
    Random search and reproducibility for neural architecture search, UAI 2019.

    Examples
    --------
    >>> from nni_dynconv.samplers import Choice
    >>> sampler = RandomSampler(seed=0)
    >>> sampler.bind({"op": Choice("op", ("conv3", "conv5"))})
    >>> sampler.probabilities("op")
    tensor([0.5000, 0.5000])
    """

    learns = "selection"
    independent = True

    def prepare(self) -> None:
        self._rewards: dict[str, tuple[float, int]] = {}  # sample as JSON numbers -> sum of rewards, their count

    def walk(self) -> Walk:
        for choice in self.choices.values():
            yield torch.zeros(len(choice))

    def observe(self, sample: Mapping[str, Any], reward: float) -> None:
        if self._objects(sample, reward):
            return
        key = json.dumps([choice.index(sample[label]) for label, choice in self.choices.items()])
        total, count = self._rewards.get(key, (0.0, 0))
        self._rewards[key] = total + float(reward), count + 1

    def forget(self) -> None:
        self._rewards.clear()

    def best(self) -> dict[str, Any]:
        if not self._rewards:
            return self._next_sample()
        key = max(self._rewards, key=lambda one: self._rewards[one][0] / self._rewards[one][1])
        numbers = json.loads(key)
        items = zip(self.choices.items(), numbers, strict=True)
        return {label: choice.candidates[number] for (label, choice), number in items}

    def _next_sample(self) -> dict[str, Any]:
        """Return what will be drawn next: asking for the best leaves the draws of a search as they were."""
        state = copy.deepcopy(self.draw_state())
        try:
            return self.sample()
        finally:
            self.set_draw_state(state)

    def memory(self) -> dict[str, Any]:
        return {"rewards": [[key, total, count] for key, (total, count) in self._rewards.items()]}

    def remember(self, memory: dict[str, Any]) -> None:
        self._rewards = {key: (total, count) for key, total, count in memory["rewards"]}
