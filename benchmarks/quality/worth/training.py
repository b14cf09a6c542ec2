"""One training for every network of these experiments, its measurement, and intervals over seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.quality.denoising_training import step as step_down
from benchmarks.quality.worth.tasks import Context, Task
from benchmarks.timing import interleave
from examples.video_denoising.training import one_cycle
from nni_dynconv import DynamicWeightMutator

__all__ = ["BATCH", "Drawing", "Interval", "batch_of", "described", "interval", "measure", "seconds_of_step", "train"]

BATCH, TESTED = 64, 512
"""Samples of a step, and samples of each context that are tested: the same ones for every network."""


def train(network: nn.Module, task: Task, contexts: Sequence[Context], steps: int, seed: int, rate: float) -> None:
    """Train by AdamW, each sample under one of the contexts; the data follow from the seed alone."""
    known = torch.tensor(contexts)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, one_cycle(steps))
    network.train()
    for number in range(steps):
        step(network, optimizer, task, known, seed * 1_000_003 + number)
        schedule.step()
    network.eval()


def step(network: nn.Module, optimizer: torch.optim.Optimizer, task: Task, contexts: Tensor, seed: int) -> None:
    """Take one step."""
    x, context, wanted = batch_of(task, "train", contexts, seed)
    step_down(network, task.loss(network(x, context), wanted), optimizer)


def batch_of(task: Task, split: str, contexts: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, their contexts, and what is wanted; all of it follows from the seed."""
    generator = torch.Generator().manual_seed(seed)
    context = contexts[torch.randint(len(contexts), (BATCH,), generator=generator)]
    x, wanted = task.draw(split, context, generator)
    return x, context, wanted


class Drawing(nn.Module):
    """A supernet that draws an architecture for each step."""

    def __init__(self, mutator: DynamicWeightMutator):
        super().__init__()
        self.space, self.mutator = mutator.space, [mutator]  # in a list: what it owns besides does not learn here

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        (mutator,) = self.mutator
        mutator.reset()
        y: Tensor = mutator(x, context=context)
        return y


@torch.no_grad()
def measure(
    network: Callable[[Tensor, Tensor], Tensor],
    task: Task,
    contexts: Sequence[Context],
    split: str = "test",
    shuffled: bool = False,
) -> float:
    """Return the mean score over contexts.

    Parameters
    ----------
    shuffled
        Whether the network is told other contexts than those that the samples have: what it does with what it is told.
    """
    scores = []
    for place, one in enumerate(contexts):
        own = torch.tensor(one).expand(TESTED, -1)
        x, wanted = task.draw(split, own, torch.Generator().manual_seed(99 + place))
        told = own
        if shuffled:
            others = torch.tensor([other for other in contexts if other != one])
            told = others[torch.arange(TESTED) % len(others)]
        scores.append(float(task.score(network(x, told), wanted)))
    return fmean(scores)


def seconds_of_step(networks: dict[str, nn.Module], task: Task, seconds: float = 20.0) -> dict[str, float]:
    """Return seconds of computing of a training step of several networks, which take turns."""
    contexts = torch.tensor(task.training)

    def step_of(network: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
        return lambda: step(network, optimizer, task, contexts, 0)

    steps = {name: step_of(network) for name, network in networks.items()}
    taken = interleave(steps, seconds, least_rounds=12, turn=0, clock=time.process_time)
    return {name: min(own) for name, own in taken.items()}


class Interval(NamedTuple):
    """A mean, and where it lies with 95 % confidence by Student's t."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of paired differences, or of others that are alike, with its interval.

    Examples
    --------
    >>> [round(one, 2) for one in interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    mean, error = fmean(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error) if error > 0 else (mean, mean)
    return Interval(mean, float(low), float(high))


def described(found: Any, digits: int = 2) -> str:
    """Write an interval."""
    return f"{found[0]:.{digits}f} ({found[1]:.{digits}f} to {found[2]:.{digits}f})"
