"""The generated weights of each site as pictures in TensorBoard, once an epoch, where a trial's trainer logs there."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from ..functional import form_all
from ..generation import WeightSource
from ..reporting import picture_of

__all__ = ["ShowWeights"]


class ShowWeights(pl.Callback):
    """Log the weights that the first sample of each validation has, the largest tensor of each site.

    They are those that its first batch makes anyway: nothing is run for them.
    """

    def __init__(self) -> None:
        self._source: WeightSource | None = None
        self._made: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ShowWeights:
        return ShowWeights()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or dataloader_idx or trainer.sanity_checking or not _boards(trainer):
            return
        self._source = next((one for one in module.modules() if isinstance(one, WeightSource)), None)
        if self._source is not None:
            self._watch(self._source)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._leave()
        for board in _boards(trainer) if self._made else ():
            for name, weight in self._made.items():
                board.add_image(f"weights/{name}", picture_of(weight.numpy()), trainer.global_step, dataformats="HWC")
        self._made = {}

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._leave()

    def _watch(self, source: WeightSource) -> None:
        own = source.make_factored

        def watched(sites: Any, code: Tensor | None) -> Any:
            made = own(sites, code)
            for site, tensors in zip(sites, made, strict=True):
                spec = max(site.specs, key=lambda one: one.numel)
                whole = form_all({spec.name: tensors[spec.name]})[spec.name].detach()
                self._made[site.name] = (whole[0] if whole.dim() > len(spec.shape) else whole).float().cpu()
            return made

        source.make_factored = watched  # type: ignore[method-assign]

    def _leave(self) -> None:
        if self._source is not None:
            vars(self._source).pop("make_factored", None)
            self._source = None


def _boards(trainer: pl.Trainer) -> list[Any]:
    if not trainer.is_global_zero:
        return []
    return [one.experiment for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
