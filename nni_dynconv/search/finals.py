"""The end of a search: the best few architectures are trained briefly, and the best after that is exported."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import RankError
from ..supernet.mutator import DynamicWeightMutator
from . import distributed
from .lightning import first_batches, network_loss, network_optimizers
from .ranking.contest import Sample, Task, distinct, generated_losses, held_out_loss, train_briefly

if TYPE_CHECKING:
    from .strategy import SearchModule

__all__ = ["Finals", "contenders_of", "end_search", "finals"]


@dataclass(frozen=True)
class Finals:
    """How the last few did.

    Parameters
    ----------
    samples
        Best first, as the search saw them.
    before, after
        Held-out loss of each with generated weights, and after its short training.
    steps, seconds
        What it took: steps for each, seconds for all.
    """

    samples: list[Sample]
    before: list[float]
    after: list[float]
    steps: int
    seconds: float

    @property
    def winner(self) -> Sample:
        """The architecture with the lowest loss after training; if all trainings diverged, with the lowest before.

        Raises
        ------
        RankError
            No loss is a finite number.
        """
        return self.samples[self._place]

    @property
    def _place(self) -> int:
        return _best_first(self.after if any(map(math.isfinite, self.after)) else self.before)[0]

    def __str__(self) -> str:
        place = self._place
        return (
            f"Re-ranked the best {len(self.samples)} architectures by {self.steps} steps of training each "
            f"({self.seconds:.1f} s): number {place + 1} is exported, held-out loss {self.before[place]:.4f} before, "
            f"{self.after[place]:.4f} after. `rerank=0` leaves this out."
        )


def _best_first(losses: Sequence[float]) -> list[int]:
    """Return places by rising loss, what is not a number last."""
    if not any(map(math.isfinite, losses)):
        raise RankError(
            f"None of {len(losses)} architectures has a finite held-out loss: the training has diverged. Lower the "
            f"learning rate or clip gradients (`gradient_clip_val`)."
        )
    return sorted(range(len(losses)), key=lambda place: math.inf if math.isnan(losses[place]) else losses[place])


def contenders_of(mutator: DynamicWeightMutator, draws: int) -> list[Sample]:
    """Return distinct architectures that the sampler draws; for one that has learned, the most probable first."""
    sampler = mutator.sampler
    drawn = [mutator.reset() for _ in range(draws)]
    if sampler.learns == "selection":
        return distinct(drawn)
    samples = distinct([mutator.export(), *drawn])
    with torch.no_grad():
        return samples[:1] + sorted(samples[1:], key=lambda one: -float(sampler.log_prob(one)))


def finals(
    mutator: DynamicWeightMutator,
    samples: Sequence[Mapping[str, Any]],
    task: Task,
    training: Iterable[Any],
    optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
    steps: int,
    clip: float | None = None,
) -> Finals:
    """Train copies of some architectures briefly, from the generated weights on, and compare them.

    The supernet's own weights do not change. Several processes of ``torch.distributed`` train each on its own, and
    decide by the mean.

    Parameters
    ----------
    task
        What they are compared by.
    training
        Training batches, the same ones for each.
    optimizers
        Makes the optimizers of one network.
    steps, clip
        Of :func:`~nni_dynconv.ranking.contest.train_briefly`.
    """
    began, after = time.monotonic(), []
    before = [distributed.mean(loss) for loss in generated_losses(mutator, samples, task)]
    for sample in samples:
        network = mutator.freeze(sample)
        train_briefly(network, task.loss, optimizers(network), training, steps, clip)
        after.append(distributed.mean(held_out_loss(network, task)))
    return Finals([dict(one) for one in samples], before, after, steps, time.monotonic() - began)


def end_search(search: SearchModule) -> None:
    """Measure what the sampler prefers, train the best few, and let the best of them be exported.

    A sampler that learns by selection learns from the first of these.
    """
    options, sampler = search.strategy, search.sampler
    selects = sampler.learns == "selection"
    if not options.contenders or not (selects or options.rerank):
        return
    samples, task = contenders_of(search.mutator, options.contenders), _task(search)
    if selects:
        losses = [distributed.mean(loss) for loss in generated_losses(search.mutator, samples, task)]
        for sample, loss in zip(samples, losses, strict=True):
            sampler.observe(sample, -loss)
        samples = [samples[place] for place in _best_first(losses)]
    if options.rerank and len(samples) > 1:
        _rerank(search, samples[: options.rerank], task)


def _rerank(search: SearchModule, samples: list[Sample], task: Task) -> None:
    options = search.strategy
    training = first_batches(options.training_batches(), options.rerank_steps, search.to_device)
    optimizers = network_optimizers(search.training_module)
    found = finals(search.mutator, samples, task, training, optimizers, options.rerank_steps, options.gradient_clip_val)
    search.sampler.settle(found.winner)
    if search.trainer.is_global_zero:
        print(found, flush=True)


def _task(search: SearchModule) -> Task:
    options, to_device = search.strategy, search.to_device
    return Task(
        network_loss(search.training_module),
        first_batches(options.validation_batches(), options.contender_batches, to_device),
        first_batches(options.training_batches(), options.calibration_batches, to_device),
    )
