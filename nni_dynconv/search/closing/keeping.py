"""What a run's history keeps of a training: what each epoch logged."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer

from ...runs import History

__all__ = ["KeepEpochs"]


class KeepEpochs(Callback):
    """Note in a run's history what each epoch of a training logged.

    Parameters
    ----------
    history
        Of the run; ``None``: nothing is noted.
    phase
        How the training is called.
    """

    of_search = True  # what comes after a search has one of its own

    def __init__(self, history: History | None, phase: str):
        self.history, self.phase = history, phase

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.history is not None and trainer.is_global_zero:
            metrics = {name: float(one) for name, one in trainer.callback_metrics.items()}
            self.history.add("epoch", phase=self.phase, epoch=trainer.current_epoch, metrics=metrics)
