"""A found network trained to its end by an evaluator, its best epoch kept, and what it measures then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning
from torch import nn

from ...errors import NotFiniteError
from ...runs import History
from ..resuming import KeepTraining
from ..timed import StopInTime
from ..trainer import TellPhase
from .best import BestEpoch, Goal, goal_of
from .evaluators import Evaluators
from .keeping import KeepEpochs
from .reports import Reports

__all__ = ["Trained", "logged", "measure", "train_final", "train_network"]


@dataclass(frozen=True)
class Trained:
    """A network, and how far its training came.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    start
        From which weights: ``generated`` or ``scratch``.
    epochs
        How many it was trained for in the end; 0: it was not.
    metric, result
        What validation measures of it, by the evaluator's name, and how much; ``None`` where nothing is measured.
    best_epoch
        Which epoch's weights it has, from 0 on; ``None``: the last one's.
    seconds
        What the training took.
    metrics
        All that validation logged of it.
    cut
        What the run's time was too short for, as sentences.
    """

    network: Any
    start: str
    epochs: int = 0
    metric: str | None = None
    result: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    cut: Sequence[str] = ()

    def __str__(self) -> str:
        measured = "" if self.result is None else f", {self.metric} {self.result:.4g}"
        if not self.epochs:
            return (
                f"NOT TRAINED: `final_epochs=0` leaves the network with the weights that the search ended with"
                f"{measured}. They are a start, no result: train it."
            )
        kept = "the last" if self.best_epoch is None else f"epoch {self.best_epoch + 1}"
        return (
            f"Trained what was found for {self.epochs} epochs more, from {self.start} weights ({self.seconds:.1f} s): "
            f"{kept} is kept{measured}. `final_epochs=0` leaves this out."
        )


def train_final(
    network: nn.Module,
    evaluator: Lightning,
    epochs: int | None = None,
    goal: Goal | None = None,
    start: str = "generated",
) -> Trained:
    """Train a found network to its end by an evaluator: optimizer, schedule, callbacks, early stopping and data.

    Parameters
    ----------
    network
        What :meth:`~nni_dynconv.DynamicWeightMutator.freeze` gave, in place.
    evaluator
        NNI's Lightning evaluator. One like it is made and run; it stays as it is.
    epochs
        Its own number by default.
    goal
        What tells the best epoch; by default what its ``ModelCheckpoint`` or ``EarlyStopping`` monitors, else the
        lowest ``val_loss``.
    start
        How the weights that it starts from are called.

    Returns
    -------
    The network with the weights of its best epoch, and what validation measures of it.

    Raises
    ------
    NotFiniteError
        The training diverged: no epoch has weights that are finite numbers. The network is as it was before.
    """
    return train_network(network, Evaluators(evaluator), epochs, goal, start)


def train_network(
    network: nn.Module,
    evaluators: Evaluators,
    epochs: int | None = None,
    goal: Goal | None = None,
    start: str = "generated",
    alike: bool = False,
    reports: Reports | None = None,
    phase: str = "final training",
    history: History | None = None,
    keeping: KeepTraining | None = None,
    in_time: StopInTime | None = None,
) -> Trained:
    """Train as :func:`train_final` does, by one of several evaluators that are made alike.

    Parameters
    ----------
    alike
        As of :meth:`Evaluators.make`.
    reports
        Are told in which phase the run is.
    phase
        How this training is called where the run's progress is shown.
    history
        Of the run, which notes what each epoch logs.
    keeping
        Keeps it, or goes on with what was kept of it.
    in_time
        Ends it where the run's time is limited.
    """
    reports = Reports() if reports is None else reports
    began, goal = time.monotonic(), goal_of(evaluators.callbacks, goal)
    before = {name: one.detach().cpu().clone() for name, one in network.state_dict().items()}
    best = BestEpoch(goal)
    try:
        keeps, stops = [] if keeping is None else [keeping], [] if in_time is None else [in_time]
        made = evaluators.make(epochs, [best, TellPhase(phase), KeepEpochs(history, phase), *stops, *keeps], alike)
        made.fit_kwargs.update(*(one.fit_kwargs for one in keeps))
        network.train()
        reports.phase = "final"
        made.evaluate(network)
        trained, kept = best.epochs, best.restore(made.trainer, made.module)
    finally:
        best.close()
    seconds = time.monotonic() - began if keeping is None else keeping.seconds
    if not _is_finite(network):
        network.load_state_dict(before)
        raise NotFiniteError(
            f"The final training diverged: after {trained} epochs the weights are no finite numbers. The network has "
            f"those that it had before. Lower the learning rate or clip gradients (`gradient_clip_val`)."
        )
    reports.phase = "result"
    metrics = measure(network, made)
    value = metrics.get(goal.metric)
    metric, cut = None if value is None else goal.metric, None if in_time is None else in_time.cut
    cuts = [] if cut is None else [cut]
    return Trained(network.cpu().eval(), start, trained, metric, value, kept, seconds, metrics, cuts)


def measure(network: nn.Module, evaluator: Lightning) -> dict[str, float]:
    """Return what an evaluator's validation logs of a network, which stays as it is; nothing where it validates none.

    Parameters
    ----------
    evaluator
        Its trainer may have trained before.
    """
    evaluator.module.set_model(network)
    given = evaluator.datamodule
    if (given is None and evaluator.val_dataloaders is None) or evaluator.trainer.limit_val_batches == 0:
        return {}
    data = {"dataloaders": evaluator.val_dataloaders} if given is None else {"datamodule": given}
    evaluator.trainer.validate(evaluator.module, verbose=False, **data)
    return logged(evaluator)


def logged(evaluator: Lightning) -> dict[str, float]:
    """Return what was logged last, as numbers."""
    found: Mapping[str, Any] = evaluator.trainer.callback_metrics
    return {name: float(one) for name, one in found.items()}


def _is_finite(network: nn.Module) -> bool:
    return all(bool(one.isfinite().all()) for one in network.parameters())
