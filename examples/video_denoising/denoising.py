"""What the quickstart's YAML names: the model space, NNI's evaluator for it, and the report that a search ends with."""

from __future__ import annotations

import os
from typing import Any

import nni
import nni.nas.strategy  # before anything under nni.nas.oneshot, or NNI's imports go round in a circle
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import RandomSampler

from .data import TEST_SETS, NoisyBatches, psnr, unseen_batches
from .report import report
from .space import DenoisingSpace
from .training import CLIP_NORM, LEARNING_RATE, one_cycle

__all__ = ["DenoisingModule", "DenoisingSpace", "evaluator", "report"]

POOL = 8


@nni.trace
class DenoisingModule(LightningModule):
    """Mean squared error on batches ``((frames, context), clean)``, with PSNR beside it.

    Parameters
    ----------
    learning_rate
        Top of a one-cycle schedule over the whole training, however long that is.
    """

    def __init__(self, learning_rate: float = LEARNING_RATE):
        super().__init__()
        self.learning_rate = learning_rate

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.model(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs, clean = batch
        value = psnr(self(inputs), clean).mean()
        self.log(f"test_psnr/{TEST_SETS[dataloader_idx]}", value, batch_size=len(clean), add_dataloader_idx=False)

    def _step(self, stage: str, batch: Any) -> Tensor:
        inputs, clean = batch
        result = self(inputs)
        loss = F.mse_loss(result, clean)
        values = {f"{stage}_loss": loss, f"{stage}_psnr": psnr(result.detach(), clean).mean()}
        for name, value in values.items():
            self.log(name, value, prog_bar=True, batch_size=len(clean))
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.0)
        schedule = LambdaLR(optimizer, one_cycle(int(self.trainer.estimated_stepping_batches)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)


def evaluator(
    epochs: int = 6,
    batches: int = 100,
    validation_batches: int | None = None,
    batch_size: int = 64,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    **trainer: Any,
) -> Lightning:
    """Give the NNI evaluator: training shots for weights, validation shots for architectures, test sets for the table.

    Parameters
    ----------
    epochs, batches, batch_size
        An epoch is ``batches`` of ``batch_size`` patches, of a pool of eight times as many.
    validation_batches
        Batches of the validation shots; as many as of training by default, as one-shot training pairs them.
    learning_rate
        Top of a one-cycle schedule over the whole training.
    seed
        Decides every batch.
    **trainer
        Further arguments of Lightning's trainer.
    """
    traced = nni.trace(NoisyBatches)  # NNI stores an evaluator by its arguments
    train = traced("train", POOL * batches, batch_size, seed=seed)
    validation = traced("validation", validation_batches or batches, batch_size, seed=seed + 1)
    settings = {
        "max_epochs": epochs,
        "enable_checkpointing": False,
        "logger": _logger(),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 20,
    }
    made = Lightning(
        DenoisingModule(learning_rate),
        Trainer(**{**settings, "enable_model_summary": False, "accelerator": "cpu", **trainer}),
        train_dataloaders=DataLoader(train, batch_size=None, sampler=RandomSampler(train, num_samples=batches)),
        val_dataloaders=DataLoader(validation, batch_size=None),
    )
    made.test_dataloaders = [DataLoader(unseen_batches(name), batch_size=None) for name in TEST_SETS]
    return made


def _logger() -> Any:
    folder = os.environ.get("NNI_OUTPUT_DIR")
    return pl.loggers.CSVLogger(folder, name="lightning") if folder else False
