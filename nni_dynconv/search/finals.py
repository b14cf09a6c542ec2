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

__all__ = ["Finals", "best_first", "finals"]


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
    """

    samples: list[Sample]
    before: list[float]
    after: list[float]
    steps: int
    seconds: float
    surcharges: Sequence[float] = ()
    networks: Sequence[nn.Module | None] = ()

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

    def __str__(self) -> str:
        place = self._place
        return (
            f"Re-ranked the best {len(self.samples)} architectures by {self.steps} steps of training each "
            f"({self.seconds:.1f} s): number {place + 1} is exported, held-out loss {self.before[place]:.4f} before, "
            f"{self.after[place]:.4f} after. `rerank=0` leaves this out."
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
    """
    began = time.monotonic()
    before = [distributed.mean(loss) for loss in generated_losses(mutator, samples, task, measured)]

    networks: list[nn.Module | None] = []

    def trained(sample: Mapping[str, Any]) -> float:
        network = mutator.freeze(sample)
        train_briefly(network, task.loss, optimizers(network), training, steps, clip)
        loss = held_out_loss(network, task)
        networks[-1] = network.cpu()
        return loss

    after = []
    for one in samples:
        networks.append(None)
        after.append(distributed.mean(measured(one, partial(trained, one))))
    seconds = time.monotonic() - began
    return Finals([dict(one) for one in samples], before, after, steps, seconds, surcharges, networks)
