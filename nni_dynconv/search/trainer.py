"""What a trainer is asked for and a search does itself, or refuses before it begins; and how far a training is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging

from ..errors import ConfigError
from ..phases import Phase, phase, shown
from ..settings import StrategySettings
from .loaders import keys_of
from .ranking.contest import Clip

__all__ = ["TellPhase", "TrainersPart", "check_evaluator", "check_optimizers", "check_validation"]

HALF = ("16", "16-mixed")


class TrainersPart:
    """Clipping and accumulation, which Lightning refuses where optimization is by hand: the search does both.

    Parameters
    ----------
    settings
        Its ``gradient_clip_val`` is the strategy's own.
    """

    def __init__(self, settings: StrategySettings):
        self.clip = Clip(settings.gradient_clip_val)
        self.accumulate = 1
        self._taken: dict[str, Any] = {}

    def take(self, trainer: Trainer) -> None:
        """Take them from a trainer, before Lightning looks."""
        if self._taken:
            return
        names = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
        self._taken = {name: getattr(trainer, name) for name in names}
        if trainer.gradient_clip_val:
            algorithm = trainer.gradient_clip_algorithm
            self.clip = Clip(float(trainer.gradient_clip_val), str(getattr(algorithm, "value", algorithm or "norm")))
        self.accumulate = trainer.accumulate_grad_batches
        trainer.gradient_clip_val, trainer.gradient_clip_algorithm, trainer.accumulate_grad_batches = None, None, 1

    def give_back(self, trainer: Trainer) -> None:
        """Leave a trainer as it was made."""
        for name, value in self._taken.items():
            setattr(trainer, name, value)
        self._taken = {}


class TellPhase(Callback):
    """Tell how far a training is, as a phase of the run, with the metrics of its last validation.

    Where nobody watches and Lightning's own bar is off, a line shows it.

    Parameters
    ----------
    name
        Of the phase, such as ``final training``.
    """

    def __init__(self, name: str):
        self.name = name
        self._open = ExitStack()
        self._now: Phase | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open.close()
        first, epochs = trainer.is_global_zero, trainer.max_epochs or 0
        self._open.enter_context(shown(unless=not first or trainer.progress_bar_callback is not None))
        total = epochs if epochs > 0 else None
        self._now = self._open.enter_context(phase(self.name, total, "epoch", first))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        batches = trainer.num_training_batches
        if self._now is not None:
            self._now.at(trainer.current_epoch + ((batch_idx + 1) / batches if 0 < batches < math.inf else 0.0))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: value for name, value in trainer.callback_metrics.items() if "val" in name}
        if self._now is not None and not trainer.sanity_checking:
            self._now.at(**{name: float(value) for name, value in sorted(metrics.items())[:2]})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._open.close()
        self._now = None


@contextmanager
def aside(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """For a block, put gradients aside that are being accumulated."""
    before = [one.grad for one in parameters]
    for one in parameters:
        one.grad = None
    try:
        yield
    finally:
        for one, gradient in zip(parameters, before, strict=True):
            one.grad = gradient


def check_evaluator(evaluator: Any, settings: StrategySettings, learns: str) -> None:
    """Refuse what a search cannot do with an evaluator, before it begins.

    Raises
    ------
    ConfigError
        The evaluator optimizes by hand, or its trainer has a callback or an option that a search cannot serve.
    """
    trainer = evaluator.trainer
    if not evaluator.module.automatic_optimization:
        raise ConfigError(
            f"{type(evaluator.module).__name__} optimizes by hand (`automatic_optimization = False`), but in a search "
            f"the strategy takes the steps. Return the loss from `training_step`, or search in a plain loop."
        )
    if trainer.gradient_clip_val and settings.gradient_clip_val:
        raise ConfigError(
            f"`gradient_clip_val` is {trainer.gradient_clip_val} in the trainer and {settings.gradient_clip_val} in "
            f"the strategy. Give it to one of them."
        )
    _check_callbacks(trainer, learns)
    _check_precision(trainer)


def _check_callbacks(trainer: Trainer, learns: str) -> None:
    kinds = {type(one): one for one in trainer.callbacks}
    if any(issubclass(one, GradientAccumulationScheduler) for one in kinds):
        raise ConfigError(
            "The callback `GradientAccumulationScheduler` is not supported in a search. Give the trainer "
            "`accumulate_grad_batches`."
        )
    if learns == "gradient" and any(issubclass(one, StochasticWeightAveraging) for one in kinds):
        raise ConfigError(
            "The callback `StochasticWeightAveraging` takes one optimizer, but a sampler that learns by gradient has "
            "one of its own. Average with `EMAWeightAveraging`, or take a sampler that learns from results."
        )


def _check_precision(trainer: Trainer) -> None:
    asked = str(getattr(trainer, "trace_kwargs", {}).get("precision"))
    if asked in HALF and trainer.precision != "16-mixed":
        raise ConfigError(
            f'The trainer was asked for `precision="{asked}"`, which Lightning replaces by {trainer.precision!r} on a '
            f'CPU. Write `precision="bf16-mixed"`, or train on a GPU.'
        )


def check_validation(module: Any, validation: Any) -> bool:
    """Return whether validation steps are told of which loader a batch is.

    Raises
    ------
    ConfigError
        There are several loaders, and the step does not take the number of one.
    """
    keys = keys_of(validation)
    if keys is None or len(keys) < 2:
        return False
    if "dataloader_idx" not in inspect.signature(module.validation_step).parameters:
        raise ConfigError(
            f"The evaluator has {len(keys)} validation loaders, but `{type(module).__name__}.validation_step` does not "
            f"take `dataloader_idx`. Write `validation_step(self, batch, batch_idx, dataloader_idx=0)`."
        )
    return True


def check_optimizers(optimizers: list[torch.optim.Optimizer]) -> None:
    """Refuse optimizers of an evaluator that a search cannot step.

    Raises
    ------
    ConfigError
        There is not exactly one, or it runs the forward itself.
    """
    if len(optimizers) != 1:
        names = ", ".join(type(one).__name__ for one in optimizers) or "none"
        raise ConfigError(
            f"The evaluator's `configure_optimizers` gives {len(optimizers)} optimizers ({names}), but a search steps "
            f"one. Give one with a group of parameters for each learning rate."
        )
    if isinstance(optimizers[0], torch.optim.LBFGS):
        raise ConfigError("`LBFGS` runs a forward several times a step, which a search cannot give it. Take another.")
