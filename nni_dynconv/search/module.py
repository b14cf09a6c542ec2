"""The search as a Lightning module around the evaluator's own: what a step trains, and what validation measures."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from lightning_fabric.utilities import move_data_to_device
from nni.nas.evaluator.pytorch import LightningModule
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from ..samplers import Sampler
from ..settings import StrategySettings
from ..supernet import DynamicWeightMutator, fixed_affine, recalibrated, tracking_norms
from . import distributed
from .ending import Loaders, end_search
from .lightning import first_batches, loss_of, silent
from .smoothing import smoothness_of_batch

__all__ = ["SearchModule"]


class SearchModule(BaseOneShotLightningModule):
    """The search as a Lightning module around the evaluator's own."""

    sampler: Sampler
    mutator: DynamicWeightMutator

    def __init__(
        self,
        training_module: LightningModule,
        mutator: DynamicWeightMutator,
        settings: StrategySettings,
        loaders: Loaders,
        callbacks: Sequence[Callback] = (),
    ):
        super().__init__(training_module)
        self.sampler = mutator.sampler
        self.__dict__["mutator"] = mutator  # unregistered: its space is the training module's model already
        self.settings, self.loaders, self.callbacks = settings, loaders, callbacks
        self._validated: dict[str, Any] = {}
        self._during_training, self._during_validation = ExitStack(), ExitStack()
        self._recent: deque[Any] = deque(maxlen=self._wanted)

    def setup(self, stage: str) -> Any:
        if isinstance(self.trainer.strategy, DDPStrategy):  # candidates that do not run have no gradient
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return super().setup(stage)

    def configure_callbacks(self) -> list[Callback]:
        return [_EndOfTraining(), *self.callbacks]

    def resample(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.reset()

    def export(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.export()

    def export_probs(self) -> dict[str, Any]:
        return self.mutator.status()["probabilities"]

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer | None:
        return self.sampler.optimizer() if self.sampler.learns == "gradient" else None

    # Training

    def on_train_epoch_start(self) -> None:
        epoch, last = self.trainer.current_epoch, max((self.trainer.max_epochs or 1) - 1, 1)
        self.sampler.anneal(epoch / last)
        learned, falling = epoch - self.settings.warmup_epochs, last - self.settings.warmup_epochs
        self._slow_down_architecture(1 - max(learned, 0) / falling if falling > 1 else 1.0)
        super().on_train_epoch_start()

    def _slow_down_architecture(self, factor: float) -> None:
        """Let the architecture settle: a candidate that wins late is exported with weights that hardly learned."""
        if self.sampler.learns == "gradient" and self.mutator.choices:
            for group in self.architecture_optimizers().param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        if self.trainer.current_epoch >= self.settings.warmup_epochs:
            self._learn_architecture(batch, batch_idx)
        self.resample()
        self._recent.append(batch["train"])
        output = self.training_module.training_step(batch["train"], batch_idx)
        loss = loss_of(output) + self._roughness(batch["train"], batch_idx)
        self.advance_optimization(loss, batch_idx, self.settings.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.settings.log_every == 0:
            self._log_architecture()
        return output

    def _roughness(self, batch: Any, batch_idx: int) -> Tensor | float:
        """Return the weighted penalty on weights of the drawn architecture that change over a batch's moments."""
        if not self.settings.smoothness:
            return 0.0
        penalty = smoothness_of_batch(self.mutator, batch)
        if batch_idx % self.settings.log_every == 0:
            self.log("smoothness", penalty.detach())
        return self.settings.smoothness * penalty

    def _learn_architecture(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.sampler.learns == "gradient":
            self.resample()
            optimizer = self.architecture_optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss_of(self.training_module.training_step(batch["val"], batch_idx)))
            optimizer.step()
        elif self.sampler.learns == "rewards":
            sample = self.resample()
            self.sampler.observe(sample, -self._held_out_loss(batch["val"], batch_idx))

    @torch.no_grad()
    def _held_out_loss(self, batch: Any, batch_idx: int) -> float:
        return distributed.mean(float(loss_of(self.training_module.training_step(batch, batch_idx))))

    def _log_architecture(self) -> None:
        status = self.mutator.status()
        if status["entropy"] is not None:
            self.log("entropy", status["entropy"], prog_bar=True)
        self.log_probs(status["probabilities"])

    def on_train_start(self) -> None:
        self.sampler.settle(None)
        self._during_training.enter_context(fixed_affine(self.mutator.space, fixed=not self.settings.norm_affine))
        super().on_train_start()

    def undo_settings(self) -> None:
        """Give back what holds during training or validation only, whether it ended or failed."""
        self._during_validation.close()
        self._during_training.close()

    def on_train_end(self) -> None:
        self.undo_settings()
        self._recent.clear()
        if self.mutator.choices:
            distributed.agree(self.sampler)
            with silent(self.training_module):
                found = end_search(self.mutator, self.training_module, self.settings, self.loaders, self.to_device)
            if found is not None and self.trainer.is_global_zero:
                print(found, flush=True)
        super().on_train_end()

    # Validation: the architecture that would be exported now

    def own_statistics(
        self, sample: Mapping[str, Any], batches: Iterable[Any] | None = None
    ) -> AbstractContextManager[None]:
        """For a block, evaluate the supernet with the BatchNorm statistics of one architecture's own.

        A copy that ``mutator.freeze(sample)`` makes in the block keeps them.

        Parameters
        ----------
        batches
            Training batches on the supernet's device; the loader's first ``calibration_batches`` by default.
        """

        def run(batch: Any) -> None:
            with self.mutator.using(sample), silent(self.training_module):
                self.training_module.training_step(batch, 0)

        return recalibrated(self.mutator.space, run, self._first_batches() if batches is None else batches)

    @property
    def _wanted(self) -> int:
        """Training batches that statistics are gathered on; none where there are no statistics."""
        return self.settings.calibration_batches if tracking_norms(self.mutator.space) else 0

    def _first_batches(self) -> list[Any]:
        if not self._wanted:
            return []
        found = first_batches(self.loaders.training(), self._wanted, self.to_device)
        if not found:
            warnings.warn(
                f"There is no training batch at hand, where `calibration_batches` wants {self._wanted}: BatchNorm "
                f"keeps the supernet's statistics, a mixture over all architectures. Gather them anew by "
                f"`mutator.freeze(sample, calibrate=batches)`.",
                stacklevel=2,
            )
        return found

    def to_device(self, batch: Any) -> Any:
        """Move a batch to where the supernet is."""
        if self._trainer is None:  # what was trained was trained in processes that this one forked
            return move_data_to_device(batch, self.device)
        return self.trainer.strategy.batch_to_device(batch, self.device)

    def on_validation_epoch_start(self) -> None:
        self._validated = self.export()
        if self._recent and self.trainer.state.fn == TrainerFn.FITTING:
            self._during_validation.enter_context(self.own_statistics(self._validated, self._recent))
        self.training_module.on_validation_epoch_start()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        with self.mutator.using(self._validated):
            return self.training_module.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._during_validation.close()
        self.training_module.on_validation_epoch_end()


class _EndOfTraining(Callback):
    """Lightning tells only callbacks of a training or validation that failed or was interrupted."""

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        pl_module.undo_settings()
