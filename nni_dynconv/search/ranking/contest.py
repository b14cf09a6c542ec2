"""Architectures compared by held-out loss: with generated weights as they are, and after short training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import RankError
from ...supernet import DynamicWeightMutator, recalibrated

__all__ = ["Clip", "Task", "as_it_is", "distinct", "generated_losses", "held_out_loss", "train_briefly"]

Sample = dict[str, Any]
Measured = Callable[[Mapping[str, Any], Callable[[], float]], float]


class Clip(NamedTuple):
    """How gradients are clipped.

    Parameters
    ----------
    value
        To what; ``None``: not at all.
    algorithm
        ``norm`` or ``value``, Lightning's words.
    """

    value: float | None = None
    algorithm: str = "norm"

    def apply(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients of parameters."""
        if self.value is None:
            return
        clip = nn.utils.clip_grad_value_ if self.algorithm == "value" else nn.utils.clip_grad_norm_
        clip(parameters, self.value)


class Task(NamedTuple):
    """What an architecture is measured by.

    Parameters
    ----------
    loss
        Of a network on a batch: a scalar with gradient, or ``None`` where the batch is left out. The network is called
        as ``network(x)`` or ``network((x, c))``.
    held_out, calibration
        Batches to score on, and training batches that BatchNorm's statistics are gathered on first.
    others
        More held-out batches, for what is said of the one that the others chose.
    together
        Whether all processes of ``torch.distributed`` measure it, each on batches of its own.
    """

    loss: Callable[[nn.Module, Any], Tensor | None]
    held_out: Sequence[Any]
    calibration: Sequence[Any] = ()
    others: Sequence[Any] = ()
    together: bool = False

    def elsewhere(self) -> Task:
        """Return the task on the other batches."""
        return self._replace(held_out=self.others)


def distinct(samples: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Return samples without repetitions, in the order of their first.

    Parameters
    ----------
    samples
        NNI's; the order of labels within one does not count.

    Returns
    -------
    Copies, as plain dicts.

    Examples
    --------
    >>> distinct([{"op": "conv3"}, {"op": "skip"}, {"op": "conv3"}])
    [{'op': 'conv3'}, {'op': 'skip'}]
    """
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(json.dumps(sample, sort_keys=True), dict(sample))
    return list(found.values())


def as_it_is(sample: Mapping[str, Any], measure: Callable[[], float]) -> float:
    """Measure an architecture, and let its errors through."""
    return measure()


def generated_losses(
    mutator: DynamicWeightMutator,
    samples: Iterable[Mapping[str, Any]],
    task: Task,
    measured: Measured = as_it_is,
) -> list[float]:
    """Return the held-out loss of each architecture with the supernet's weights, which stay as they are.

    Parameters
    ----------
    mutator
        Of a trained supernet.
    samples
        Of its space.
    task
        What they are measured by; BatchNorm is recalibrated for each of them.
    measured
        Calls what measures one, and decides what becomes of an error.

    Returns
    -------
    A loss for each sample, in their order; lower is better.

    Raises
    ------
    SampleError
        A sample is none of the space.
    RankError
        There is no held-out batch.
    """
    losses = []
    for sample in samples:
        with mutator.using(sample):
            losses.append(measured(sample, lambda: held_out_loss(mutator.space, task)))
    return losses


def held_out_loss(network: nn.Module, task: Task) -> float:
    """Return the mean loss over the held-out batches, in evaluation mode, after BatchNorm has been recalibrated.

    Parameters
    ----------
    network
        It stays as it is: modes and running statistics are put back.
    task
        Its loss, held-out batches, and the training batches for the recalibration.

    Raises
    ------
    RankError
        There is no held-out batch, or the training step leaves out all of them.
    """
    if not task.held_out:
        raise RankError("Architectures are compared by their loss on held-out batches, but there is none.")
    how = (lambda batch: task.loss(network, batch)), task.calibration, task.together
    with torch.no_grad(), recalibrated(network, *how):
        losses = [float(loss) for batch in task.held_out if (loss := task.loss(network, batch)) is not None]
    if not losses:
        raise RankError(
            f"Architectures are compared by their loss on held-out batches, but the training step leaves out all "
            f"{len(task.held_out)} of them (`None`). Give more (`contender_batches`)."
        )
    return sum(losses) / len(losses)


def train_briefly(
    network: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor | None],
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterable[Any],
    steps: int,
    clip: Clip | float | None = None,
) -> None:
    """Train for some steps, the learning rate falling in a line to zero.

    Parameters
    ----------
    network
        In place; it is left in training mode.
    loss
        Of the network on a batch: a scalar with gradient, as of :class:`Task`.
    optimizers
        Of its parameters; all of them take each step, from the learning rates that they have.
    batches
        Gone through as often as needed.
    steps
        How many batches to train on.
    clip
        Norm that the gradients are clipped to, or how else; ``None``: none.
    """
    clip = clip if isinstance(clip, Clip) else Clip(clip)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: 1 - step / steps) for one in optimizers]
    network.train()
    for batch in islice(cycle(batches), steps):
        network.zero_grad()
        value = loss(network, batch)
        if value is not None:
            value.backward()
            clip.apply(network.parameters())
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
