"""A trainer cut short: a few steps, one validation, nothing kept, and a clock beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils import _pytree as pytree

from ...settings import StrategySettings

__all__ = ["STEPS", "Clock", "Plan", "cut_short", "short_options"]

STEPS = 4
SHORT = {
    "warmup_epochs": 0,
    "contenders": 2,
    "contender_batches": 1,
    "rerank": 2,
    "rerank_steps": 1,
    "calibration_batches": 1,
    "diagnose_every": 0,
    "population": 2,
    "evaluations": 2,
    "proxy_draws": 1,
}
"""Options of the strategy in a try, at most."""


def short_options(options: Mapping[str, Any], mode: str = "one_shot") -> dict[str, Any]:
    """Return a strategy's options, with what makes it long cut to what shows whether it works.

    Parameters
    ----------
    mode
        Of the run; in ``multi_trial`` nothing is compared.
    """
    whole = {name: getattr(StrategySettings(), name) for name in SHORT} | dict(options)
    short = {**options, **{name: min(whole[name], most) for name, most in SHORT.items()}}
    return short | ({"contenders": 0, "rerank": 0} if mode == "multi_trial" else {})


class Plan(NamedTuple):
    """How long a trainer was asked to train: epochs, steps at most (-1: no limit), shares or numbers of batches."""

    epochs: int | None
    steps: int
    training: int | float
    validation: int | float


def cut_short(trainer: pl.Trainer, steps: int = STEPS) -> Plan:
    """Let a trainer run a few steps and one validation batch, write nothing, and stop; return what it was asked for."""
    plan = Plan(trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches, trainer.limit_val_batches)
    trainer.fit_loop.max_epochs, trainer.fit_loop.min_epochs = 1, None
    trainer.fit_loop.epoch_loop.max_steps = trainer.fit_loop.epoch_loop.min_steps = -1
    trainer.limit_train_batches = steps if plan.training else plan.training
    trainer.limit_val_batches = 1 if plan.validation else plan.validation
    trainer.check_val_every_n_epoch, trainer.val_check_interval = 1, 1.0
    trainer.loggers = [DummyLogger() for _ in trainer.loggers]
    trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, pl.callbacks.Checkpoint)]
    return plan


@dataclass
class Clock(pl.Callback):
    """Notes how long steps take and how many there would be."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    batches: tuple[int | None, int | None] = (None, None)
    _began: float = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.batches = _longest(trainer.train_dataloader), _all(trainer.val_dataloaders)

    def on_train_batch_start(self, *_: Any) -> None:
        self._began = _now()

    def on_train_batch_end(self, *_: Any) -> None:
        self.training.append(_now() - self._began)

    def on_validation_batch_start(self, *_: Any) -> None:
        self._began = _now()

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validation.append(_now() - self._began)

    @property
    def step(self) -> float | None:
        """Seconds of a training step; the first, which also warms up, counts only alone."""
        return statistics.median(self.training[1:] or self.training) if self.training else None

    @property
    def look(self) -> float | None:
        """Seconds of a validation step."""
        return self.validation[-1] if self.validation else None


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _lengths(loaders: Any) -> list[int] | None:
    try:
        return [len(one) for one in pytree.tree_leaves(getattr(loaders, "iterables", loaders))]
    except TypeError:  # a stream has none
        return None


def _longest(loaders: Any) -> int | None:
    return max(_lengths(loaders) or [], default=None)


def _all(loaders: Any) -> int | None:
    found = _lengths(loaders)
    return None if found is None else sum(found)
