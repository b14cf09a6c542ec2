"""The end of a search: what the sampler prefers is measured, its best few are trained, and the best of them wins."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import LightningModule

from ..phases import advance, phase
from ..samplers import distributed
from ..settings import StrategySettings
from ..supernet import DynamicWeightMutator
from .final import Compared, FinalSearch, is_plain, table
from .finals import Finals, Kept, best_first, finals, kept_of
from .guarding import Guard
from .lightning import network_loss, network_optimizers
from .loaders import Loaders, first_batches
from .ranking.contest import Clip, Measured, Sample, Task, distinct, generated_losses
from .resuming import Memo

__all__ = ["End", "contenders_of", "end_search"]

PLACE = "The end of the search"


@dataclass
class End:
    """What the end of a search is given besides its settings.

    Parameters
    ----------
    loaders
        Of the evaluator.
    to_device
        Makes a batch what the network takes.
    guard
        Decides what becomes of an architecture that raises.
    clip
        How gradients are clipped, in the search as in the end.
    most_training, most_validation
        Batches that Lightning was allowed to take of a loader.
    fast
        Batches of a ``fast_dev_run``; 0 in earnest.
    costs
        Of an architecture, by name, beside the package's own.
    said
        What there is to say of it.
    memo
        Of what was measured before the run was interrupted.
    """

    loaders: Loaders
    to_device: Callable[[Any], Any]
    guard: Guard
    clip: Clip
    most_training: float = math.inf
    most_validation: float = math.inf
    fast: int = 0
    costs: Mapping[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    memo: Memo = field(default_factory=Memo)

    def training(self, count: int) -> list[Any]:
        """Return training batches, at most so many."""
        return first_batches(self.loaders.training(), int(min(count, self.most_training)), self.to_device)

    def held_out(self, count: int) -> list[Any]:
        """Return held-out batches, at most so many."""
        count = int(min(count, self.most_validation))
        return first_batches(self.loaders.validation(), count, self.to_device, self.loaders.alternate)


def contenders_of(mutator: DynamicWeightMutator, count: int) -> list[Sample]:
    """Return distinct architectures, the most probable first; of a sampler that learns by selection, draws.

    Warns
    -----
    UserWarning
        It is not proven that there are none that are more probable.
    """
    sampler = mutator.sampler
    if sampler.learns == "selection":
        return distinct(mutator.reset() for _ in range(count))
    found = sampler.most_probable(count)
    if not found.proven:
        warnings.warn(
            f"The {len(found.samples)} architectures that are compared in the end are the most probable ones that were "
            f"found, and not proven to be the most probable there are: the space is too large to tell.",
            stacklevel=2,
        )
    return found.samples


def _varied(mutator: DynamicWeightMutator, best: int, count: int) -> list[Sample]:
    """Return the most probable ones and draws, for a search that goes on from there."""
    return distinct([*contenders_of(mutator, min(best, count)), *(mutator.reset() for _ in range(count))])[:count]


def end_search(
    mutator: DynamicWeightMutator, training_module: LightningModule, settings: StrategySettings, end: End
) -> Finals | None:
    """Measure what the sampler prefers, train the best few, and let the best of them be exported.

    A sampler that learns by selection learns from the first of these.

    Returns
    -------
    How the last few did; ``None`` where none were trained.
    """
    sampler = mutator.sampler
    selects, plain = sampler.learns == "selection", is_plain(settings)
    if not settings.contenders or not (selects or settings.rerank or not plain):
        return None
    if selects:
        sampler.forget()
    count, calibration = settings.contender_batches, end.training(settings.calibration_batches)
    held_out = end.held_out(2 * count)
    task = Task(network_loss(training_module), held_out[:count], calibration, held_out[count:], together=True)

    def measured(sample: Mapping[str, Any], measure: Callable[[], float]) -> float:
        try:
            return end.memo.again(lambda: end.guard.measured(sample, measure, PLACE))
        finally:
            advance()

    if not plain:
        return _end_by_final_search(mutator, training_module, settings, end, task, measured)
    wanted = settings.contenders if selects else min(settings.contenders, settings.rerank)
    samples = contenders_of(mutator, min(wanted, end.fast + 1) if end.fast else wanted)
    if selects:
        with phase("comparing", len(samples), "architecture", distributed.is_first()):
            losses = [distributed.mean(loss) for loss in generated_losses(mutator, samples, task, measured)]
        for sample, loss in zip(samples, losses, strict=True):
            if sampler.objection(-loss) is None:
                sampler.observe(sample, -loss)
        samples = [samples[place] for place in best_first(losses)]
    if not settings.rerank or len(samples) < 2:
        return None
    found = _trained(mutator, training_module, samples, task, settings, end, measured)
    sampler.settle(found.winner)
    return found


def _end_by_final_search(
    mutator: DynamicWeightMutator,
    training_module: LightningModule,
    settings: StrategySettings,
    end: End,
    task: Task,
    measured: Measured,
) -> Finals | None:
    """Measure what evolution, costs or a proxy asks for, train the best few, and let the best of them be exported."""
    began = time.monotonic()
    search = FinalSearch(mutator, task, settings, measured, partial(end.guard.measured, place=PLACE), end.costs)
    with phase("comparing", tells=distributed.is_first()):
        compared = search.run(partial(_varied, mutator, max(settings.rerank, 1)), end.fast + 1 if end.fast else None)
    end.said.append(_cost_of_search(compared, settings, time.monotonic() - began))
    for one in compared.contenders:
        if mutator.sampler.learns == "selection" and mutator.sampler.objection(-one.loss) is None:
            mutator.sampler.observe(one.sample, -one.loss)
    ranked = compared.ranked(settings.pick, settings.importance)[: max(settings.rerank, 1)]
    samples, surcharges = [one.sample for one, _ in ranked], [more for _, more in ranked]
    found = None
    if len(samples) > 1:
        found = _trained(mutator, training_module, samples, task, settings, end, measured, surcharges)
    winner = samples[0] if found is None else found.winner
    rows = compared.rows() if settings.objectives else []
    mutator.sampler.settle(winner, rows)
    if rows:
        end.said.append(f"The front; what is exported has a star:\n{table(rows, winner)}")
    return found


def _cost_of_search(compared: Compared, settings: StrategySettings, seconds: float) -> str:
    losses = [one.loss for one in compared.contenders]
    first = [one for one in losses[: settings.population] if math.isfinite(one)]
    best = f"the best held-out loss is {compared.best_first('loss')[0].loss:.4f}"
    if settings.final_search == "evolution" and first:
        best += f", of the first {min(settings.population, len(losses))} it is {min(first):.4f}"
    return f"Measured {len(losses)} architectures ({seconds:.1f} s): {best}."


def _trained(
    mutator: DynamicWeightMutator,
    training_module: LightningModule,
    samples: Sequence[Sample],
    task: Task,
    settings: StrategySettings,
    end: End,
    measured: Measured,
    surcharges: Sequence[float] = (),
) -> Finals:
    steps = min(settings.rerank_steps, end.fast) if end.fast else settings.rerank_steps
    how = network_optimizers(training_module), steps, end.clip, measured

    def trained(sample: Mapping[str, Any], train: Callable[[], Kept]) -> Kept:
        try:
            return end.memo.again(
                lambda: kept_of(dict(sample), train, partial(end.guard.measured, place=PLACE)), large=True
            )
        finally:
            advance()

    samples = samples[: settings.rerank]
    with phase("re-ranking", 2 * len(samples), tells=distributed.is_first()):  # each is scored, and then trained
        return finals(mutator, samples, task, end.training(steps), *how, surcharges=surcharges, trained=trained)
