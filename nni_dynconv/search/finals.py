"""Copies of the best few architectures are trained briefly, and compared."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import RankError
from ..samplers import distributed
from ..supernet import DynamicWeightMutator
from .ranking.contest import Clip, Measured, Sample, Task, as_it_is, generated_losses, held_out_loss, train_briefly

__all__ = ["Finals", "Kept", "best_first", "finals", "kept_of"]

Kept = dict[str, Any]
"""What a short training ended with: the losses by each task, and the network's tensors; empty where it raised."""


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
    surcharges
        What the costs of each add to its losses when they are compared; nothing by default.
    networks
        The trained copies, on the CPU; ``None`` where one raised.
    elsewhere
        The same losses on batches that choose nothing: the least of several is too low for other batches. ``None``
        where there are no such batches.
    """

    samples: list[Sample]
    before: list[float]
    after: list[float]
    steps: int
    seconds: float
    surcharges: Sequence[float] = ()
    networks: Sequence[nn.Module | None] = ()
    elsewhere: tuple[list[float], list[float]] | None = None

    @property
    def network(self) -> nn.Module | None:
        """The winner as it was trained; ``None`` where no training ended with a finite loss."""
        place = self._place
        return self.networks[place] if self.networks and math.isfinite(self.after[place]) else None

    @property
    def winner(self) -> Sample:
        """The architecture with the lowest loss after training; if all trainings diverged, with the lowest before.

        What its costs add counts with the loss.

        Raises
        ------
        RankError
            No loss is a finite number.
        """
        return self.samples[self._place]

    @property
    def _place(self) -> int:
        losses = self.after if any(map(math.isfinite, self.after)) else self.before
        surcharges = self.surcharges or [0.0] * len(losses)
        return best_first([loss + more for loss, more in zip(losses, surcharges, strict=True)])[0]

    def told(self) -> dict[str, Any]:
        """Return as plain data what was compared: a row for each architecture, as the search ranked them."""
        columns = zip(self.samples, self.before, self.after, strict=True)
        rows = [{"architecture": sample, "before": before, "after": after} for sample, before, after in columns]
        return {"rows": rows, "winner": self._place, "steps": self.steps, "seconds": round(self.seconds, 1)}

    def __str__(self) -> str:
        place = self._place
        before, after = (one[place] for one in self.elsewhere or (self.before, self.after))
        which = (
            "on batches that choose nothing" if self.elsewhere else "on the batches that chose it, so rather too low"
        )
        return (
            f"Re-ranked the best {len(self.samples)} architectures by {self.steps} steps of training each "
            f"({self.seconds:.1f} s): number {place + 1} is exported, held-out loss {before:.4f} before, "
            f"{after:.4f} after ({which}). `rerank=0` leaves this out."
        )


def best_first(losses: Sequence[float]) -> list[int]:
    """Return places by rising loss, what is not a number last."""
    if not any(map(math.isfinite, losses)):
        raise RankError(
            f"None of {len(losses)} architectures has a finite held-out loss: the training has diverged. Lower the "
            f"learning rate or clip gradients (`gradient_clip_val`)."
        )
    return sorted(range(len(losses)), key=lambda place: math.inf if math.isnan(losses[place]) else losses[place])


def finals(
    mutator: DynamicWeightMutator,
    samples: Sequence[Mapping[str, Any]],
    task: Task,
    training: Iterable[Any],
    optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
    steps: int,
    clip: Clip | None = None,
    measured: Measured = as_it_is,
    surcharges: Sequence[float] = (),
    trained: Callable[[Sample, Callable[[], Kept]], Kept] | None = None,
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
    measured
        Calls what measures one, and decides what becomes of an error.
    surcharges
        What the costs of each add to its losses.
    trained
        Calls what trains one, or returns what that gave before; by default by ``measured``.
    """
    began = time.monotonic()
    tasks = [task, task.elsewhere()] if task.others else [task]
    before = [list(map(distributed.mean, generated_losses(mutator, samples, one, measured))) for one in tasks]
    trained = trained or partial(kept_of, measured=measured)
    found = [_trained(mutator, one, tasks, training, optimizers, steps, clip, trained) for one in samples]
    after = [[losses[row] for _, losses in found] for row in range(len(tasks))]
    seconds = time.monotonic() - began
    elsewhere = (before[1], after[1]) if task.others else None
    networks = [network for network, _ in found]
    return Finals([dict(one) for one in samples], before[0], after[0], steps, seconds, surcharges, networks, elsewhere)


def kept_of(sample: Sample, train: Callable[[], Kept], measured: Measured) -> Kept:
    """Return what a training gives, or nothing where it raised and may be left out."""
    kept: Kept = {}

    def measure() -> float:
        kept.update(train())
        return kept["losses"][0]

    measured(sample, measure)
    return kept


def _trained(
    mutator: DynamicWeightMutator,
    sample: Mapping[str, Any],
    tasks: Sequence[Task],
    training: Iterable[Any],
    optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
    steps: int,
    clip: Clip | None,
    trained: Callable[[Sample, Callable[[], Kept]], Kept],
) -> tuple[nn.Module | None, list[float]]:
    """Train a copy, and return it with its loss by each task; none where it raised."""
    network: nn.Module | None = None

    def train() -> Kept:
        nonlocal network
        copy = mutator.freeze(sample)
        train_briefly(copy, tasks[0].loss, optimizers(copy), training, steps, clip)
        losses = [held_out_loss(copy, task) for task in tasks]
        network = copy.cpu()
        return {"losses": losses, "network": network.state_dict()}

    kept = trained(dict(sample), train)
    if kept and network is None:  # it was trained before the run was interrupted
        network = mutator.freeze(sample).cpu()
        network.load_state_dict(kept["network"])
    return network, list(map(distributed.mean, kept["losses"] if kept else [math.nan] * len(tasks)))
