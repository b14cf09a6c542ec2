"""Gumbel sampling with a straight-through gradient: one path runs, and the logits still learn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..settings import GdasSettings, check_arguments
from .differentiable import DifferentiableSampler

__all__ = ["GdasSampler"]


class GdasSampler(DifferentiableSampler):
    """Draw one candidate by Gumbel-max; its output is scaled by a factor of one that carries the gradient.

    ``p = softmax((log_softmax(alpha) + gumbel) / tau)``, ``factor = onehot(argmax p) - stop_gradient(p) + p``. The
    noise is drawn once for each label and ``reset()``, so that layers which share a label agree.

    Parameters
    ----------
    seed, learning_rate, weight_decay
        See :class:`DifferentiableSampler`.
    tau_start, tau_end
        Temperature at the start and at the end of the search; it falls in a line.

    Raises
    ------
    ConfigError
        A setting has another type, or lies outside of its range.

    References
    ----------
    Dong and Yang, Searching for a robust neural architecture in four GPU hours, CVPR 2019.
    """

    def __init__(
        self,
        seed: int | None = None,
        learning_rate: float = 0.02,
        weight_decay: float = 0.0,
        tau_start: float = 4.0,
        tau_end: float = 0.5,
    ):
        check_arguments(self, GdasSettings(seed, learning_rate, weight_decay, tau_start, tau_end))  # its own defaults
        super().__init__(seed, learning_rate, weight_decay)
        self.tau_start, self.tau_end = tau_start, tau_end
        self.tau = tau_start
        self._drawn: dict[str, tuple[int, Tensor]] = {}  # label -> number of the candidate, noise

    def anneal(self, progress: float) -> None:
        self.tau = self.tau_start + (self.tau_end - self.tau_start) * min(max(progress, 0.0), 1.0)

    def _draw(self, label: str, logits: Tensor) -> int:
        uniform = torch.rand(len(logits), generator=self.generator).clamp_min(1e-20)
        noise = (-(-uniform.log()).clamp_min(1e-20).log()).to(logits)
        number = int((logits.detach().log_softmax(-1) + noise).argmax())
        self._drawn[label] = number, noise
        return number

    def relaxed(self, label: str) -> Tensor | None:
        if label not in self._drawn:
            return None
        number, noise = self._drawn[label]
        soft = ((self.alpha(label).log_softmax(-1) + noise) / self.tau).softmax(-1)
        hard = torch.zeros_like(soft)
        hard[number] = 1.0
        return hard - soft.detach() + soft
