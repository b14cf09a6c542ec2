"""Which epoch of a training is the best: the metric that says so, and the weights that it had."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging

from ...files import write_atomically
from ...keeping import decode, encode

__all__ = ["BestEpoch", "Goal", "goal_of"]

EPOCHS, SUFFIX = "epochs", ModelCheckpoint.FILE_EXTENSION


class Goal(NamedTuple):
    """What a network is measured by.

    Parameters
    ----------
    metric
        As the evaluator's validation logs it.
    mode
        ``min`` or ``max``, Lightning's words.
    """

    metric: str
    mode: str

    def better(self, one: float, other: float) -> bool:
        """Whether a value is better than another."""
        return one < other if self.mode == "min" else one > other


def goal_of(callbacks: Sequence[Callback], told: Goal | None = None) -> Goal:
    """Return what the best epoch is told by: what was said, else what the evaluator's own callbacks watch.

    Parameters
    ----------
    callbacks
        Of the evaluator: a ``ModelCheckpoint`` with a ``monitor`` counts before an ``EarlyStopping``; without both it
        is the lowest ``val_loss``.

    Examples
    --------
    >>> goal_of([EarlyStopping("val_acc", mode="max")])
    Goal(metric='val_acc', mode='max')
    >>> goal_of([])
    Goal(metric='val_loss', mode='min')
    """
    if told is not None:
        return told
    for kind in (ModelCheckpoint, EarlyStopping):
        for one in callbacks:
            if isinstance(one, kind) and one.monitor is not None:
                return Goal(one.monitor, one.mode)
    return Goal("val_loss", "min")


def averages(trainer: Trainer) -> bool:
    """Whether a training ends with weights that no epoch had."""
    return any(isinstance(one, StochasticWeightAveraging) for one in trainer.callbacks)


class BestEpoch(ModelCheckpoint):
    """Keeps the weights of a training's best epoch, in a folder that goes with it; of the last, where none is best.

    Parameters
    ----------
    goal
        What tells the best. Where no validation logs it, and after an averaging of weights, whose result no epoch
        has, the last epoch counts.
    """

    def __init__(self, goal: Goal):
        self._place = tempfile.TemporaryDirectory(prefix="best-epoch-")
        super().__init__(self._place.name, "epoch", monitor=goal.metric, mode=goal.mode, save_weights_only=True)
        self.goal, self._count = goal, 0

    @property
    def state_key(self) -> str:
        return "BestEpoch"  # Lightning's has the monitor in it, which comes and goes

    def state_dict(self) -> dict[str, Any]:
        """Return which epoch is the best, with its weights: the folder goes with the process."""
        path = Path(self.best_model_path)
        kept = path.read_bytes() if self.best_model_path and path.is_file() else None
        last = self._last_global_step_saved
        return {"count": self._count, "score": self.best_model_score, "kept": kept, "last": last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._count, self._last_global_step_saved = state_dict["count"], state_dict["last"]
        self._write_count()
        if state_dict["kept"] is None:
            return
        path, score = Path(self.dirpath or self._place.name, f"epoch{SUFFIX}"), state_dict["score"]
        path.write_bytes(state_dict["kept"])
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = score
        if score is not None:
            self.kth_value, self.best_k_models = score, {str(path): score}

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        state = {"epoch": trainer.current_epoch, "state_dict": trainer.strategy.lightning_module_state_dict()}
        if trainer.is_global_zero:
            write_atomically(Path(filepath), encode(state))
        self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)
        self._count += 1
        if trainer.is_global_zero:
            self._write_count()
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)
        super().on_validation_end(trainer, pl_module)

    def _write_count(self) -> None:
        """Write it into a file, for the epochs may end in a forked process."""
        Path(self._place.name, EPOCHS).write_text(str(self._count))

    def _look(self, trainer: Trainer) -> None:
        known = self.goal.metric in trainer.callback_metrics and not averages(trainer)
        self.monitor = self.goal.metric if known else None

    @property
    def epochs(self) -> int:
        """How many epochs have ended."""
        path = Path(self.dirpath or self._place.name, EPOCHS)
        return int(path.read_text()) if path.is_file() else 0

    def restore(self, trainer: Trainer, module: LightningModule) -> int | None:
        """Give a module the weights of the best epoch, and return its number from 0 on; ``None``: it has the last's."""
        path = Path(self.best_model_path)
        if averages(trainer) or not path.is_file():
            return None
        kept: dict[str, Any] = decode(path.read_bytes())
        module.load_state_dict(kept["state_dict"])
        return int(kept["epoch"])

    def close(self) -> None:
        """Remove the folder."""
        self._place.cleanup()
