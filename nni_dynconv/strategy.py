"""The mutator as a strategy of NNI's ``NasExperiment``: NNI's one-shot machinery around a Lightning evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from . import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import LightningModule
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from torch import Tensor

from .errors import SpaceError
from .mutator import DynamicWeightMutator
from .samplers import Sampler

__all__ = ["DynamicStrategy", "SearchModule"]


class DynamicStrategy(OneShotStrategy):
    """Search the space of a mutator by training its supernet once.

    Weights and controller train on training batches, by the evaluator's own optimizer and loss. The sampler learns on
    validation batches: by gradient (DARTS, GDAS; its learning rate falls in a line, to zero in the last epoch), by
    rewards, each the negative loss of one drawn architecture (ENAS), or by comparing some architectures when training
    has ended (random). Validation measures the architecture that :meth:`DynamicWeightMutator.export` would give.

    Parameters
    ----------
    mutator
        The mutator; give its ``mutator.space`` to the experiment.
    warmup_epochs
        Epochs before the sampler starts to learn.
    gradient_clip_val
        Norm that the evaluator's gradients are clipped to.
    log_every
        Steps between two logs of entropy and probabilities.
    contenders, contender_batches
        With a sampler that learns by selection: how many drawn architectures are compared, on how many of the same
        validation batches.

    Notes
    -----
    A batch is ``((x, context), y)``, or ``(x, y)`` without context: NNI's evaluators call the model with the batch's
    first element.
    """

    def __init__(
        self,
        mutator: DynamicWeightMutator,
        *,
        warmup_epochs: int = 0,
        gradient_clip_val: float | None = None,
        log_every: int = 10,
        contenders: int = 32,
        contender_batches: int = 8,
        **options: Any,
    ):
        super().__init__(**options)
        mutator.check_sampler()
        self.mutator = mutator
        self.warmup_epochs, self.gradient_clip_val, self.log_every = warmup_epochs, gradient_clip_val, log_every
        self.contenders, self.contender_batches = contenders, contender_batches
        self.validation_batches: Callable[[], Any] = list

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        if model is not self.mutator.space:
            raise SpaceError(
                f"This strategy searches the space of its mutator, but the experiment has another "
                f"{type(model).__name__}. Write `NasExperiment(mutator.space, evaluator, mutator.strategy())`."
            )
        return model

    def configure_oneshot_module(self, training_module: LightningModule) -> SearchModule:
        return SearchModule(training_module, self)

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        self.validation_batches = val_dataloader_fn
        if self.mutator.sampler.learns == "selection":
            return {"train": train_dataloader_fn()}
        return {"train": train_dataloader_fn(), "val": val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        return val_dataloader_fn()

    def extra_repr(self) -> str:
        return f"sampler={type(self.mutator.sampler).__name__}"


class SearchModule(BaseOneShotLightningModule):
    """The search as a Lightning module around the evaluator's own."""

    sampler: Sampler
    mutator: DynamicWeightMutator

    def __init__(self, training_module: LightningModule, strategy: DynamicStrategy):
        super().__init__(training_module)
        self.sampler = strategy.mutator.sampler
        self.__dict__["mutator"] = strategy.mutator  # unregistered: its space is the training module's model already
        self.strategy = strategy
        self._validated: dict[str, Any] = {}

    def resample(self) -> dict[str, Any]:
        return self.mutator.reset()

    def export(self) -> dict[str, Any]:
        return self.mutator.export()

    def export_probs(self) -> dict[str, Any]:
        return self.mutator.status()["probabilities"]

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer | None:
        return self.sampler.optimizer() if self.sampler.learns == "gradient" else None

    # Training

    def on_train_epoch_start(self) -> None:
        last = max((self.trainer.max_epochs or 1) - 1, 1)
        progress = self.trainer.current_epoch / last
        self.sampler.anneal(progress)
        self._slow_down_architecture(1 - progress if last > 1 else 1.0)
        super().on_train_epoch_start()

    def _slow_down_architecture(self, factor: float) -> None:
        """Let the architecture settle: a candidate that wins late is exported with weights that hardly learned."""
        if self.sampler.learns == "gradient" and self.mutator.choices:
            for group in self.architecture_optimizers().param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        if self.trainer.current_epoch >= self.strategy.warmup_epochs:
            self._learn_architecture(batch, batch_idx)
        self.resample()
        output = self.training_module.training_step(batch["train"], batch_idx)
        self.advance_optimization(_loss(output), batch_idx, self.strategy.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.strategy.log_every == 0:
            self._log_architecture()
        return output

    def _learn_architecture(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.sampler.learns == "gradient":
            self.resample()
            optimizer = self.architecture_optimizers()
            optimizer.zero_grad()
            self.manual_backward(_loss(self.training_module.training_step(batch["val"], batch_idx)))
            optimizer.step()
        elif self.sampler.learns == "rewards":
            sample = self.resample()
            self.sampler.observe(sample, -self._held_out_loss(batch["val"], batch_idx))

    @torch.no_grad()
    def _held_out_loss(self, batch: Any, batch_idx: int) -> float:
        return float(_loss(self.training_module.training_step(batch, batch_idx)))

    def _log_architecture(self) -> None:
        status = self.mutator.status()
        if status["entropy"] is not None:
            self.log("entropy", status["entropy"], prog_bar=True)
        self.log_probs(status["probabilities"])

    def on_train_end(self) -> None:
        if self.sampler.learns == "selection" and self.mutator.choices:
            self._select()
        super().on_train_end()

    def _select(self) -> None:
        """Compare drawn architectures on the same validation batches, by the loss."""
        with _silent(self.training_module):
            for _ in range(self.strategy.contenders):
                sample = self.resample()
                for index, batch in enumerate(
                    islice(self.strategy.validation_batches(), self.strategy.contender_batches)
                ):
                    batch = self.trainer.strategy.batch_to_device(batch, self.device)
                    self.sampler.observe(sample, -self._held_out_loss(batch, index))

    # Validation: the architecture that would be exported now

    def on_validation_epoch_start(self) -> None:
        self._validated = self.export()
        self.training_module.on_validation_epoch_start()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        with self.mutator.using(self._validated):
            return self.training_module.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self.training_module.on_validation_epoch_end()


def _loss(output: Any) -> Tensor:
    return output["loss"] if isinstance(output, dict) else output


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Keep a module from logging where Lightning does not allow it."""
    log = module.log
    module.log = lambda *args, **kwargs: None
    try:
        yield
    finally:
        module.log = log
