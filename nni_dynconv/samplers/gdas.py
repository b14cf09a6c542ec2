"""Gumbel sampling: one path runs in training, and the logits learn by comparing two, or straight through one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..settings import GdasSettings, check_arguments
from .differentiable import DifferentiableSampler

__all__ = ["GdasSampler"]


class GdasSampler(DifferentiableSampler):
    """Draw one candidate of each label by Gumbel-max, and learn by comparing the losses of a few such draws.

    On a held-out batch :meth:`DynamicWeightMutator.architecture_loss` runs ``paths`` architectures without gradient,
    and :meth:`DifferentiableSampler.score` makes of their losses an unbiased gradient of the expected loss. It needs
    nothing but losses, so that no norm behind a choice can cancel it.

    In each forward the chosen output is also multiplied by the factor of the paper, which is one and has a gradient:
    ``p = softmax((log_softmax(alpha) + gumbel) / tau)``, ``factor = onehot(argmax p) - stop_gradient(p) + p``. A
    ``loss.backward()`` of your own gives the logits that gradient, and with ``paths=1`` it is what is learned by. It is
    biased: it tells how the loss changes with the size of the chosen output, not what another candidate would give, and
    a norm behind the choice cancels it. The noise is drawn once for each label and ``reset()``, so that layers which
    share a label agree.

    Parameters
    ----------
    seed, learning_rate, weight_decay
        See :class:`DifferentiableSampler`.
    tau_start, tau_end
        Temperature of the factor's gradient when learning begins and when it ends; it falls in a line.
    paths
        Architectures that are compared on one held-out batch; 1: none, the paper's gradient through the factor.

    Raises
    ------
    ConfigError
        A setting has another type, or lies outside of its range.

    Notes
    -----
    The paper learns through the factor. The score function's gradient is noisier where no norm stands behind a choice,
    and right everywhere; two forwards cost less than the forward and backward that it replaces. Lower-variance forms of
    the factor, such as Gumbel-Rao (Paulus et al., ICLR 2021), go through the same product and are cancelled with it.

    References
    ----------
    Dong and Yang, Searching for a robust neural architecture in four GPU hours, CVPR 2019; Kool et al., Buy 4 REINFORCE
    samples, get a baseline for free!, ICLR 2019 workshop.
    """

    def __init__(
        self,
        seed: int | None = None,
        learning_rate: float = 0.02,
        weight_decay: float = 0.0,
        tau_start: float = 4.0,
        tau_end: float = 0.5,
        paths: int = 2,
    ):
        rates = learning_rate, weight_decay, tau_start, tau_end
        check_arguments(self, GdasSettings(seed, *rates, paths))  # its own defaults
        super().__init__(seed, learning_rate, weight_decay)
        self.tau_start, self.tau_end, self.paths = tau_start, tau_end, paths
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

    def memory(self) -> dict[str, Any]:
        # plain strings for NNI's labels, which `torch.load` refuses: this is part of a saved state
        drawn = {str(label): [number, noise.cpu()] for label, (number, noise) in self._drawn.items()}
        return {"tau": self.tau, "drawn": drawn}

    def remember(self, memory: dict[str, Any]) -> None:
        if memory:  # a state of an earlier version has none
            self.tau = memory["tau"]
            self._drawn = {
                label: (number, noise.to(self.alpha(label))) for label, (number, noise) in memory["drawn"].items()
            }
