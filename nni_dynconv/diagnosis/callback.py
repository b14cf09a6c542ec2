"""Diagnosis during a search: a Lightning callback."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytorch_lightning as pl

from ..errors import ConfigError
from ..samplers import distributed
from ..search import step_of
from .diagnosing import diagnose
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["DiagnosisCallback", "DiagnosisWarning"]


class DiagnosisWarning(UserWarning):
    """A diagnosis during a search has found something; each finding is told once."""


class DiagnosisCallback(pl.Callback):
    """Diagnose before the first step and after every few epochs; log numbers, and warn of faults and warnings.

    Give it to the evaluator's trainer (``callbacks=[...]``), or say ``mutator.strategy(diagnose_every=...)``. It uses
    training batches of the epoch, and changes nothing of the search. Under DDP every process diagnoses on its own
    batches, for a step may gather from all of them; the first process logs and warns.

    Parameters
    ----------
    every_n_epochs
        Epochs between two diagnoses; the last epoch always has one.
    batches
        How many of an epoch's first training batches are kept for it.
    samples, ignore
        As of :func:`diagnose`.
    mutator
        The mutator; by default that of the strategy that is searching.

    Attributes
    ----------
    diagnoses
        All of them, in order.

    Raises
    ------
    ConfigError
        ``every_n_epochs`` or ``batches`` is below 1, or nothing tells the mutator.
    """

    of_search = True  # what was found is trained without it: there is no supernet then

    def __init__(
        self,
        every_n_epochs: int = 1,
        *,
        batches: int = 4,
        samples: int = 12,
        ignore: Collection[str] = (),
        mutator: DynamicWeightMutator | None = None,
    ):
        for name, value in (("every_n_epochs", every_n_epochs), ("batches", batches)):
            if value < 1:
                raise ConfigError(f"`{name}` of DiagnosisCallback is {value}, but must be 1 or more.")
        self.every_n_epochs, self.batches, self.samples, self.ignore = every_n_epochs, batches, samples, ignore
        self.mutator = mutator
        self.diagnoses: list[Diagnosis] = []
        self._kept: list[Any] = []
        self._told: set[tuple[str, str]] = set()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._kept = []
        if len(self._kept) < self.batches:
            self._kept.append(batch["train"] if isinstance(batch, Mapping) and "train" in batch else batch)
        if batch_idx == 0 and trainer.current_epoch == 0:
            self._diagnose(trainer, module, 0.0)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        done, last = trainer.current_epoch + 1, trainer.max_epochs or -1
        if self._kept and (done % self.every_n_epochs == 0 or done == last):
            self._diagnose(trainer, module, min(done / last, 1.0) if last > 0 else None)
        self._kept = []

    def _diagnose(self, trainer: pl.Trainer, module: Any, progress: float | None) -> None:
        mutator = getattr(module, "mutator", None) if self.mutator is None else self.mutator
        if mutator is None:
            raise ConfigError(
                f"DiagnosisCallback does not know the mutator: {type(module).__name__} has none. Give it: "
                f"`DiagnosisCallback(mutator=mutator)`."
            )
        mutator.check_sampler()
        distributed.agree(mutator.sampler)  # all run the same architectures: a step may wait for the others
        step = step_of(getattr(module, "training_module", module))
        options: dict[str, Any] = {"samples": self.samples, "limit": self.batches, "ignore": self.ignore}
        found = diagnose(mutator, self._kept, step=step, progress=progress, **options)
        self.diagnoses.append(found)
        history = getattr(module, "history", None)
        if history is not None and trainer.is_global_zero:
            history.add("diagnosis", **found.to_dict())
        if trainer.is_global_zero:
            self._tell(module, found)

    def _tell(self, module: Any, found: Diagnosis) -> None:
        values = {"diagnosis/faults": float(len(found.faults)), "diagnosis/warnings": float(len(found.warnings))}
        if found.context is not None:
            told = {"context_variation": found.context.variation, "context_gap": found.context.gap}
            values |= {f"diagnosis/{name}": value for name, value in told.items() if value is not None}
        module.log_dict(values, rank_zero_only=True)
        for one in (*found.faults, *found.warnings):
            if (one.code, one.where) not in self._told:
                self._told.add((one.code, one.where))
                warnings.warn(f"{found.headline}\n{one}", DiagnosisWarning, stacklevel=2)
