"""What DARTS and GDAS share: one learned logit a candidate, trained by a gradient on held-out batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LearningError
from ..settings import DartsSettings, check_arguments
from .base import Sampler, Walk

__all__ = ["DifferentiableSampler"]


class DifferentiableSampler(Sampler):
    """Independent categorical distributions, ``softmax(alpha)`` for each label.

    Parameters
    ----------
    seed
        Decides the draws; the logits start at zero, so that every candidate starts alike.
    learning_rate, weight_decay
        Of the architecture's Adam.

    Raises
    ------
    ConfigError
        A setting has another type, or lies outside of its range.
    """

    learns = "gradient"
    independent = True

    def __init__(self, seed: int | None = None, learning_rate: float = 3e-3, weight_decay: float = 0.0):
        super().__init__(seed)
        check_arguments(self, DartsSettings(seed, learning_rate, weight_decay))
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def prepare(self) -> None:
        self.alphas = nn.ParameterList(nn.Parameter(torch.zeros(len(choice))) for choice in self.choices.values())
        self._rows = {label: row for row, label in enumerate(self.choices)}

    def walk(self) -> Walk:
        yield from self.alphas

    def alpha(self, label: str) -> Tensor:
        """Return the logits of a label, ``(n,)``."""
        self._known(label)
        alpha = self.alphas[self._rows[label]]
        if alpha.is_cuda:  # the scaler of float16 makes gradients too large, and leaves out their step itself
            self.watch.scaled = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.half
        return alpha

    def score(self, samples: Sequence[Mapping[str, Any]], losses: Sequence[float]) -> Tensor:
        r"""Return a scalar whose gradient is the score-function estimate of that of the expected loss.

        .. math:: \frac{1}{K-1} \sum_k (L_k - \bar L) \, \nabla \log p(a_k)

        It is what each loss is above the mean of the other ones, its leave-one-out baseline, times the gradient of the
        log-probability. Unbiased for the expected loss of what the sampler draws, on the batch that all losses are of:
        also under the space's constraints, whose normalisation cancels, for the factors sum to zero.

        Parameters
        ----------
        samples
            ``K`` architectures, two or more, drawn independently.
        losses
            Of each, on the same batch.

        Returns
        -------
        The scalar; its value is the mean loss.

        Raises
        ------
        LearningError
            There are fewer than two, or not as many losses as samples.
        SampleError
            A sample names a candidate that there is not.

        References
        ----------
        Kool et al., Buy 4 REINFORCE samples, get a baseline for free!, ICLR 2019 workshop on deep reinforcement
        learning meets structured prediction; Williams, Simple statistical gradient-following algorithms for
        connectionist reinforcement learning, Machine Learning 1992.

        Examples
        --------
        >>> from nni_dynconv.samplers import Choice, GdasSampler
        >>> sampler = GdasSampler()
        >>> sampler.bind({"op": Choice("op", ("conv3", "conv5"))})
        >>> sampler.score([{"op": "conv3"}, {"op": "conv5"}], [1.0, 3.0]).backward()
        >>> sampler.alpha("op").grad
        tensor([-1.,  1.])
        """
        if len(samples) < 2 or len(losses) != len(samples):
            raise LearningError(
                f"`score` was given {len(samples)} samples and {len(losses)} losses, but compares two samples or more, "
                f"and needs the loss of each. Draw them by `sample()`, and measure them on one batch."
            )
        measured = torch.tensor([float(one) for one in losses], dtype=torch.double)
        factors = (measured - measured.mean()) / (len(losses) - 1)
        total = sum(factor * self.log_prob(one) for factor, one in zip(factors.tolist(), samples, strict=True))
        assert isinstance(total, Tensor)
        return measured.mean().to(total) + total - total.detach()

    def described(self) -> dict[str, Tensor]:
        return {f"label `{label}`": self.alphas[row] for label, row in self._rows.items()}

    def optimizer(self) -> torch.optim.Optimizer:
        self.watch.optimized = True
        return torch.optim.Adam(
            self.parameters(), lr=self.learning_rate, betas=(0.5, 0.999), weight_decay=self.weight_decay
        )
