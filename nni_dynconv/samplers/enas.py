"""Sampling by a recurrent policy that learns from rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NotFiniteError
from ..settings import EnasSettings, check_arguments
from .base import Sampler, Walk

__all__ = ["EnasSampler"]


class EnasSampler(Sampler):
    """An LSTM chooses label by label, each choice told to the next; REINFORCE moves it towards rewards.

    ``loss = -(reward - baseline) / spread * log p(sample) - entropy_weight * entropy``; baseline and spread are moving
    averages.

    Parameters
    ----------
    seed
        Decides initial weights and draws.
    hidden
        Width of the LSTM.
    learning_rate
        Of Adam, one step a reward.
    entropy_weight
        Keeps the policy from settling early.
    entropy_weight_end
        The weight at the search's end, to which it goes in a line; ``None``: the same throughout.
    baseline_decay
        Of the moving averages.
    tanh_constant
        Bound of the logits, as in the paper.

    Raises
    ------
    ConfigError
        A setting has another type, or lies outside of its range.

    Notes
    -----
    The paper subtracts a moving average of the reward; here the difference is also divided by its moving spread, so
    that the scale of a loss does not matter. A reward that is not a finite number, as of a loss that diverged, or
    larger than 1e30, is left out with a warning: it would make the averages and then the policy no numbers either.

    References
    ----------
    Pham et al., Efficient neural architecture search via parameter sharing, ICML 2018.
    """

    reach = 4096

    def __init__(
        self,
        seed: int | None = None,
        hidden: int = 64,
        learning_rate: float = 0.01,
        entropy_weight: float = 0.01,
        entropy_weight_end: float | None = None,
        baseline_decay: float = 0.9,
        tanh_constant: float = 2.5,
    ):
        super().__init__(seed)
        rates = learning_rate, entropy_weight, entropy_weight_end, baseline_decay, tanh_constant
        check_arguments(self, EnasSettings(seed, hidden, *rates))
        self.hidden, self.learning_rate, self.entropy_weight = hidden, learning_rate, entropy_weight
        self.entropy_weights = entropy_weight, entropy_weight if entropy_weight_end is None else entropy_weight_end
        self.baseline_decay, self.tanh_constant = baseline_decay, tanh_constant

    def prepare(self) -> None:
        sizes = [len(choice) for choice in self.choices.values()]
        with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
            self.cell = nn.LSTMCell(self.hidden, self.hidden)
            self.start = nn.Parameter(torch.empty(1, self.hidden))
            self.tokens = nn.ModuleList(nn.Embedding(size, self.hidden) for size in sizes)
            self.heads = nn.ModuleList(nn.Linear(self.hidden, size, bias=False) for size in sizes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=self.generator)
        self.baseline: Tensor
        self.spread: Tensor
        self.observed: Tensor
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(()))
        self.register_buffer("observed", torch.zeros((), dtype=torch.long))
        self._adam = torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def anneal(self, progress: float) -> None:
        start, end = self.entropy_weights
        self.entropy_weight = start + (end - start) * min(max(progress, 0.0), 1.0)

    def walk(self) -> Walk:
        x: Tensor
        x, state = self.start, None
        for token, head in zip(self.tokens, self.heads, strict=True):
            state = self.cell(x, state)
            number = yield self.tanh_constant * torch.tanh(head(state[0])[0])
            x = token(torch.tensor([number], device=x.device))

    def ahead(self, numbers: Tensor, state: Any) -> tuple[Tensor, Any]:
        taken, place = numbers.to(self.start.device), numbers.shape[1]
        x = self.tokens[place - 1](taken[:, -1]) if place else self.start.expand(len(taken), -1)
        state = self.cell(x, state)
        return self.tanh_constant * torch.tanh(self.heads[place](state[0])), state

    def observe(self, sample: Mapping[str, Any], reward: float) -> None:
        if self._objects(sample, reward):
            return
        advantage, averages = self._advantage(float(reward))
        with torch.enable_grad():
            log_prob, entropy = self._evaluate(sample)
            loss = -advantage * log_prob - self.entropy_weight * entropy
            parameters = list(self.parameters())
            # `backward()` would tell a DistributedDataParallel around the mutator that these take part in its next step
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        if not loss.isfinite():
            raise NotFiniteError(
                f"EnasSampler cannot learn from the reward {float(reward):g} of architecture {dict(sample)}: the "
                f"policy's loss is {float(loss.detach()):g}. Its state was saved so, or `entropy_weight`, now "
                f"{self.entropy_weight:g}, is too large."
            )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        for average, value in zip((self.baseline, self.spread), averages, strict=True):
            average.fill_(value)
        self.observed += 1

    def _advantage(self, reward: float) -> tuple[float, tuple[float, float]]:
        """Return the reward's distance from the moving average, in moving mean distances, and both averages after."""
        baseline, spread = float(self.baseline) if self.observed else reward, float(self.spread)
        # the first is its own average; what rounding leaves of that would count as a whole distance
        distance = reward - baseline
        rate = max(1 - self.baseline_decay, 1 / (1 + int(self.observed)))
        spread += rate * (abs(distance) - spread)
        return distance / max(spread, 1e-12), (baseline + rate * distance, spread)

    def memory(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict()["state"], "entropy_weight": self.entropy_weight}

    def remember(self, memory: dict[str, Any]) -> None:
        self._adam.load_state_dict({**self._adam.state_dict(), "state": memory["adam"]})
        self.entropy_weight = memory.get("entropy_weight", self.entropy_weight)
