"""Uniform sampling in rounds, in each of which every candidate is trained once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .random import RandomSampler

__all__ = ["FairSampler"]


class FairSampler(RandomSampler):
    """Draw the candidates of a label in rounds: each once, in an order that is drawn anew for each round.

    After a whole number of rounds all candidates of a label have been trained equally often, where independent draws
    leave differences that grow with the square root of the steps. A label of ``n`` candidates has rounds of ``n``
    steps. One architecture alone is distributed as in :class:`RandomSampler`. Draws that break a constraint of the
    space count in their round, and are not trained.

    Parameters
    ----------
    seed
        Decides the orders of the rounds; ``None`` draws a seed. The global generator is left alone.

    Notes
    -----
    The paper sums the gradients of a round and takes one step; here each architecture takes a step of its own.

    References
    ----------
    Chu et al., FairNAS: Rethinking evaluation fairness of weight sharing neural architecture search, ICCV 2021,
    section 3.2 (strict fairness).

    Examples
    --------
    >>> from nni_dynconv.samplers import Choice
    >>> sampler = FairSampler(seed=0)
    >>> sampler.bind({"op": Choice("op", ("conv3", "conv5", "skip"))})
    >>> sorted(sampler.sample()["op"] for _ in range(3))
    ['conv3', 'conv5', 'skip']
    """

    def prepare(self) -> None:
        super().prepare()
        self._rounds: dict[str, list[int]] = {}  # label -> what is left of its round, in order

    def _draw(self, label: str, logits: Tensor) -> int:
        if not self._rounds.get(label):
            self._rounds[label] = torch.randperm(len(logits), generator=self.generator).tolist()
        return self._rounds[label].pop()

    def draw_state(self) -> dict[str, Any]:
        # plain strings for NNI's labels, which `torch.load` refuses: this is part of a saved state
        return {**super().draw_state(), "rounds": {str(label): list(left) for label, left in self._rounds.items()}}

    def set_draw_state(self, state: Mapping[str, Any]) -> None:
        super().set_draw_state(state)
        self._rounds = {label: list(left) for label, left in state["rounds"].items()}
