"""The end of a search: what the sampler prefers is measured, its best few are trained, and the best of them wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import LightningModule

from ..settings import StrategySettings
from ..supernet import DynamicWeightMutator
from . import distributed
from .finals import Finals, best_first, finals
from .lightning import first_batches, network_loss, network_optimizers
from .ranking.contest import Sample, Task, distinct, generated_losses

__all__ = ["Loaders", "contenders_of", "end_search"]


@dataclass
class Loaders:
    """What gives the evaluator's batches: training ones, and held-out ones."""

    training: Callable[[], Any] = list
    validation: Callable[[], Any] = list


def contenders_of(mutator: DynamicWeightMutator, draws: int) -> list[Sample]:
    """Return distinct architectures that the sampler draws; for one that has learned, the most probable first."""
    sampler = mutator.sampler
    drawn = [mutator.reset() for _ in range(draws)]
    if sampler.learns == "selection":
        return distinct(drawn)
    samples = distinct([mutator.export(), *drawn])
    with torch.no_grad():
        return samples[:1] + sorted(samples[1:], key=lambda one: -float(sampler.log_prob(one)))


def end_search(
    mutator: DynamicWeightMutator,
    training_module: LightningModule,
    settings: StrategySettings,
    loaders: Loaders,
    to_device: Callable[[Any], Any],
) -> Finals | None:
    """Measure what the sampler prefers, train the best few, and let the best of them be exported.

    A sampler that learns by selection learns from the first of these.

    Returns
    -------
    How the last few did; ``None`` where none were trained.
    """
    sampler = mutator.sampler
    selects = sampler.learns == "selection"
    if not settings.contenders or not (selects or settings.rerank):
        return None
    samples = contenders_of(mutator, settings.contenders)
    task = Task(
        network_loss(training_module),
        first_batches(loaders.validation(), settings.contender_batches, to_device),
        first_batches(loaders.training(), settings.calibration_batches, to_device),
    )
    if selects:
        losses = [distributed.mean(loss) for loss in generated_losses(mutator, samples, task)]
        for sample, loss in zip(samples, losses, strict=True):
            sampler.observe(sample, -loss)
        samples = [samples[place] for place in best_first(losses)]
    if not settings.rerank or len(samples) < 2:
        return None
    training = first_batches(loaders.training(), settings.rerank_steps, to_device)
    how = network_optimizers(training_module), settings.rerank_steps, settings.gradient_clip_val
    found = finals(mutator, samples[: settings.rerank], task, training, *how)
    sampler.settle(found.winner)
    return found
