"""A search of seconds for the tests that run real NNI experiments: a toy space and its evaluator."""

from __future__ import annotations

import nni
import nni.nas.strategy
import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv.ops import DynamicConv2d

CHANNELS = 2


class ToySpace(ModelSpace):
    """Two choices; the task is a 3x3 blur, so a 1x1 kernel cannot do it."""

    def __init__(self):
        super().__init__()
        first = {str(size): DynamicConv2d(1, CHANNELS, size, padding=size // 2) for size in (1, 3)}
        last = {"dynamic": DynamicConv2d(CHANNELS, 1, 1), "static": nn.Conv2d(CHANNELS, 1, 1)}
        self.first = LayerChoice(first, label="first")
        self.last = LayerChoice(last, label="last")

    def forward(self, x):
        return self.last(self.first(x))


@nni.trace
class ToyModule(LightningModule):
    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def on_validation_epoch_end(self):
        nni.report_intermediate_result(-float(self.trainer.callback_metrics["val_loss"]))

    def on_fit_end(self):
        nni.report_final_result(-float(self.trainer.callback_metrics["val_loss"]))


def evaluator(epochs=2, batches=4):
    x = torch.rand(8 * batches, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = list(zip(x, F.avg_pool2d(x, 3, 1, 1), strict=True))
    settings = {"max_epochs": epochs, "enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    return Lightning(
        ToyModule(),
        Trainer(**settings, enable_model_summary=False, accelerator="cpu"),
        train_dataloaders=DataLoader(data, batch_size=8),
        val_dataloaders=DataLoader(data, batch_size=8),
    )
