"""How a network is trained and scored: the same for the search, the final training and all that it is compared with."""

from __future__ import annotations

from typing import Any

import nni
import nni.nas.strategy  # before anything else of nni.nas, or its imports go round in a circle
import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from torch import Tensor

from data import loaders


@nni.trace
class Training(LightningModule):
    """Cross entropy and accuracy, on batches `((image, turn), digit)`.

    YOURS: the loss, what is logged, and the optimizer. `metric` in experiment.yml is one of the names logged here.
    """

    def __init__(self, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.model(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step("test", batch)

    def _step(self, stage: str, batch: Any) -> Tensor:
        inputs, digit = batch
        scores = self(inputs)
        loss = F.cross_entropy(scores, digit)
        accuracy = (scores.argmax(1) == digit).float().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_acc": accuracy}, batch_size=len(digit))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def evaluator(
    epochs: int = 4, batch_size: int = 64, learning_rate: float = 2e-3, accelerator: str = "cpu", **trainer: Any
) -> Lightning:
    """Give NNI's evaluator; `evaluator_args` in experiment.yml sets the arguments, Lightning's `Trainer` has more."""
    train, validation, test = loaders(batch_size)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    made = Lightning(
        Training(learning_rate),
        Trainer(max_epochs=epochs, accelerator=accelerator, **{**quiet, **trainer}),
        train_dataloaders=train,
        val_dataloaders=validation,
    )
    made.test_dataloaders = test  # they choose nothing: they measure what the search was worth
    return made
