"""What DARTS and GDAS share: one learned logit a candidate, trained by the loss's gradient on held-out batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def described(self) -> dict[str, Tensor]:
        return {f"label `{label}`": self.alphas[row] for label, row in self._rows.items()}

    def optimizer(self) -> torch.optim.Optimizer:
        self.watch.optimized = True
        return torch.optim.Adam(
            self.parameters(), lr=self.learning_rate, betas=(0.5, 0.999), weight_decay=self.weight_decay
        )
