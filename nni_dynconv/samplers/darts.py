"""The continuous relaxation: a forward runs the mixture of all candidates."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..settings import DartsSettings, check_arguments
from .base import Walk
from .differentiable import DifferentiableSampler

__all__ = ["DartsSampler"]

LEAST = 1e-2
"""The least concentration: of smaller ones all but one share are zero in double precision."""


class DartsSampler(DifferentiableSampler):
    r"""Mix the outputs of all candidates; every candidate runs, and makes its weights.

    The shares of the mixture are drawn anew at each ``reset()``, from a Dirichlet distribution whose concentrations
    learn, ``beta = elu(alpha) + 1`` (DrNAS): at the start from all mixtures there are alike. Or they are
    ``softmax(alpha)``, as in DARTS. Out of training they are their mean, ``beta / beta.sum()``, or the same softmax.

    Parameters
    ----------
    seed, learning_rate, weight_decay
        See :class:`DifferentiableSampler`. Of ``dirichlet``, the decay is DrNAS's anchor at the start.
    mixture
        ``dirichlet`` or ``softmax``.
    beta_decay
        Of ``softmax``: weight of the mean over all labels of ``logsumexp(alpha)``, which keeps shares from differing
        by much before weights are trained (beta-DARTS); it goes up in a line, from 0 at the first step of learning.
    unroll
        Step of the weights, as their optimizer's learning rate, that the held-out loss is looked at after (DARTS of
        second order, by finite differences); 0: first order. Three more forwards and backwards each time.

    Raises
    ------
    ConfigError
        A setting has another type, or lies outside of its range, or ``beta_decay`` is of no ``softmax``.

    Notes
    -----
    A mixture of the same shares in each step is trained as one, and its candidates learn to complete each other: a
    convolution takes off again what a pool adds. The most probable candidate need then not be the best alone, least so
    behind a norm, where only the ratio of their outputs counts. Where shares are drawn, no candidate can rely on those
    of others. Draws are of gamma variables, whose gradients are those of Figurnov et al.; DrNAS's widening of channels
    is not built.

    References
    ----------
    Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019; Chen et al., DrNAS: Dirichlet Neural Architecture
    Search, ICLR 2021; Ye et al., beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search, CVPR
    2022; Wang et al., Rethinking architecture selection in differentiable NAS, ICLR 2021; Figurnov et al., Implicit
    reparameterization gradients, NeurIPS 2018.

    Examples
    --------
    >>> from nni_dynconv.samplers import Choice
    >>> sampler = DartsSampler(seed=0)
    >>> sampler.bind({"op": Choice("op", ("conv3", "conv5"))})
    >>> sampler.probabilities("op")
    tensor([0.5000, 0.5000])
    >>> drawn = [sampler.sample() and sampler.relaxed("op") for _ in range(2)]
    >>> [round(float(shares.sum()), 4) for shares in drawn], bool((drawn[0] == drawn[1]).any())
    ([1.0, 1.0], False)
    """

    mixes = True

    def __init__(
        self,
        seed: int | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        mixture: Literal["dirichlet", "softmax"] = "dirichlet",
        beta_decay: float = 0.0,
        unroll: float = 0.0,
    ):
        check_arguments(self, DartsSettings(seed, learning_rate, weight_decay, mixture, beta_decay, unroll))
        if beta_decay and mixture != "softmax":
            raise ConfigError(
                f"`beta_decay` of DartsSampler is {beta_decay}, but `mixture` is {mixture!r}, whose concentrations it "
                f'would lower. Set `mixture` to "softmax", or leave `beta_decay` out.'
            )
        super().__init__(seed, learning_rate, weight_decay)
        self.mixture, self.beta_decay, self.unroll = mixture, beta_decay, unroll
        self.decay = 0.0
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}  # label -> gamma variables, their slopes

    def anneal(self, progress: float) -> None:
        self.decay = self.beta_decay * min(max(progress, 0.0), 1.0)

    def walk(self) -> Walk:
        for alpha in self.alphas:
            yield alpha if self.mixture == "softmax" else concentration(alpha).log()

    def _draw(self, label: str, logits: Tensor) -> int:
        if self.mixture == "dirichlet":
            self._drawn[label] = self._gamma(concentration(self.alpha(label).detach().cpu().double()))
        return super()._draw(label, logits)

    def _gamma(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a gamma variable of each concentration, and how it changes with that."""
        with torch.enable_grad():  # `torch.distributions` draws by it too, but from the global generator
            drawn = torch._standard_gamma(beta.requires_grad_(), generator=self.generator)
            (slope,) = torch.autograd.grad(drawn.sum(), beta)
        drawn = drawn.detach().clamp_min(torch.finfo(torch.double).tiny)
        total = drawn.sum()  # the shares alone count: so large that single precision holds them
        return drawn / total, slope / total

    def relaxed(self, label: str) -> Tensor:
        """Return the shares of a label, ``(n,)``: in training those that were drawn with the last sample."""
        alpha = self.alpha(label)
        if self.mixture == "softmax":
            return alpha.softmax(-1)
        beta = concentration(alpha)
        if self.training and label in self._drawn:
            drawn, slope = self._drawn[label]
            beta = drawn.to(beta) + slope.to(beta) * (beta - beta.detach())
        return beta / beta.sum()

    def penalty(self) -> Tensor | None:
        if not self.decay:
            return None
        return self.decay * torch.stack([alpha.logsumexp(-1) for alpha in self.alphas]).mean()


def concentration(alpha: Tensor) -> Tensor:
    """Return the concentrations of the Dirichlet distribution that logits stand for: 1 of 0, and never none."""
    return 1 + (1 - LEAST) * F.elu(alpha)
