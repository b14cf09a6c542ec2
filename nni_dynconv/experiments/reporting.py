"""What a trial tells NNI where its YAML names a metric: after each epoch, by phase."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from ..errors import ConfigError
from ..search import Reports

__all__ = ["ReportMetric"]


class ReportMetric(pl.Callback):
    """Tell NNI a logged validation metric after each epoch of a training, with its phase.

    Of several processes, the first one reports. The final result is told by whoever knows which network is kept.

    Parameters
    ----------
    name
        As the evaluator's ``self.log`` names it. ``None``: the evaluator reports by itself, as NNI's own do.
    """

    def __init__(self, name: str | None):
        self.name = name
        self.reports = Reports(own=name is None)

    def __deepcopy__(self, memo: dict[int, Any]) -> ReportMetric:
        return self  # every training of a trial is told of in one row

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.name is None or trainer.sanity_checking:
            return
        if self.name not in trainer.callback_metrics:
            known = sorted(name for name in trainer.callback_metrics if not name.startswith("prob/"))
            raise ConfigError(f"`metric` is `{self.name}`, but the evaluator logs {known} in validation.")
        phase = self.reports.phase
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and phase in ("search", "final"):
            more = {"phase": phase, "epoch": trainer.current_epoch + 1, **self._others(trainer)}
            self.reports.intermediate(self.last(trainer), **more)

    def _others(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return what else was logged, which NNI's page shows by its name, without each candidate's probability."""
        logged = {
            name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("prob/")
        }
        hidden = (self.name, "default", "phase", "epoch")
        return {name: value for name, value in logged.items() if name not in hidden and math.isfinite(value)}

    def last(self, trainer: pl.Trainer) -> float | None:
        """Return what the last validation logged, which Lightning also brings back from processes that it started."""
        value = trainer.callback_metrics.get(self.name) if self.name is not None else None
        return None if value is None else float(value)
