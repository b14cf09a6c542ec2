"""The step of a plain loop as an evaluator, so that a found network is trained to its end as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from torch import Tensor, nn

from ...runs import Run
from ...supernet import DynamicWeightMutator
from .evaluators import Evaluators
from .scratch import from_scratch
from .training import Trained, train_network
from .writing import Writer

__all__ = ["Step", "evaluator_of", "train_by_step"]

Step = Callable[[nn.Module, Any], Tensor]
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class _Stepping(LightningModule):
    def __init__(self, step: Step, optimizer: Callable[[nn.Module], Any]):
        super().__init__()
        self.step, self.optimizer = step, optimizer

    def forward(self, *inputs: Any) -> Any:
        return self.model(*inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step(self.model, batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.step(self.model, batch), batch_size=1)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.model)


def evaluator_of(
    step: Step,
    train: Iterable[Any],
    held_out: Iterable[Any] | None,
    optimizer: Callable[[nn.Module], Any],
    epochs: int,
    device: torch.device,
) -> Lightning:
    """Return an evaluator that takes a plain loop's steps.

    Parameters
    ----------
    step
        Called as ``step(network, batch)``; gives the loss.
    train, held_out
        Batches: loaders, or lists of them.
    optimizer
        Called as ``optimizer(network)``; gives whatever Lightning's ``configure_optimizers`` may.
    device
        Where it trains.
    """
    where = {"accelerator": "cpu"} if device.type == "cpu" else {"accelerator": "gpu", "devices": [device.index or 0]}
    trainer = Trainer(max_epochs=epochs, num_sanity_val_steps=0, **QUIET, **where)
    loaders = {"train_dataloaders": _loader(train), "val_dataloaders": _loader(held_out)}
    return Lightning(_Stepping(step, optimizer), trainer, **loaders)


def _loader(batches: Iterable[Any] | None) -> Any:
    """Return a list of batches as a loader: of a list, Lightning takes each item for a loader."""
    if not isinstance(batches, (list, tuple)):
        return batches
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def train_by_step(
    mutator: DynamicWeightMutator,
    step: Step,
    train: Iterable[Any],
    held_out: Iterable[Any] | None,
    optimizer: Callable[[nn.Module], Any],
    epochs: int,
    sample: Mapping[str, Any],
    initial: Mapping[str, Tensor] | None = None,
    folder: str | Path | None = None,
) -> Trained:
    """Train one architecture by a plain loop's step; see :meth:`nni_dynconv.DynamicWeightMutator.train_final`."""
    device = next((one.device for one in mutator.space.parameters()), torch.device("cpu"))
    evaluator = evaluator_of(step, train, held_out, optimizer, epochs, device)
    network = mutator.freeze(sample) if initial is None else from_scratch(mutator, sample, initial)
    writer = Writer(None if folder is None else Run(folder))
    writer.began()
    writer.searched(mutator, network, sample)
    start = "generated" if initial is None else "scratch"
    evaluators = Evaluators(evaluator, [step, optimizer])
    history = None if writer.run is None else writer.run.history
    trained = train_network(network, evaluators, start=start, history=history)
    writer.trained(trained)
    writer.exported(trained, evaluators)
    writer.shown()
    return trained
