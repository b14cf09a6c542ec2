"""Hooks of the evaluator's Lightning module that NNI's one-shot module does not hand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import LightningModule
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from pytorch_lightning import Callback

__all__ = ["HandingOn", "OnBatches", "changes_batches"]

ON_BATCHES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class HandingOn(BaseOneShotLightningModule):
    """Hands on what Lightning calls besides NNI's list."""

    def configure_callbacks(self) -> Sequence[Callback]:
        given = self.training_module.configure_callbacks()
        return [given] if isinstance(given, Callback) else list(given)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.training_module.on_validation_batch_start(batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.training_module.on_validation_batch_end(outputs, batch, batch_idx, dataloader_idx)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if not getattr(optimizer, "is_arch_optimizer", False):
            self.training_module.on_before_optimizer_step(optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_load_checkpoint(checkpoint)


def changes_batches(module: LightningModule) -> bool:
    """Whether an evaluator's module has hooks of its own on batches."""
    return any(getattr(type(module), hook) is not getattr(LightningModule, hook) for hook in ON_BATCHES)


class OnBatches(BaseOneShotLightningModule):
    """Hands on the hooks on batches, part by part; only where there are any, for Lightning asks whose they are."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self._of_parts(self.training_module.on_before_batch_transfer, batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        def move(part: Any, number: int) -> Any:
            return self.training_module.transfer_batch_to_device(part, device, number)

        return self._of_parts(move, batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self._of_parts(self.training_module.on_after_batch_transfer, batch, dataloader_idx)

    def _of_parts(self, hook: Any, batch: Any, dataloader_idx: int) -> Any:
        if not self.trainer.training:
            return hook(batch, dataloader_idx)
        return {name: hook(part, dataloader_idx) for name, part in batch.items()}
