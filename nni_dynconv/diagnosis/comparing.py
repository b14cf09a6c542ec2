"""What a sampler has to learn a choice by: how the loss changes with it, as the sampler gets to know of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..samplers import distributed
from .recording import kept
from .thresholds import LEAST_LESSON

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["lessons"]

Step = Callable[[Any], Tensor]


def lessons(
    mutator: DynamicWeightMutator, batches: Sequence[Any], samples: Sequence[Any], step: Step
) -> dict[str, float]:
    """Return for each label how much there is to learn it by, over the loss; it runs inside ``kept(mutator)``.

    Of a sampler that learns through a factor or a mixture: the norm of the gradient of the label's logits, the most of
    some steps. Of others, which compare losses: how much the loss changes where another candidate takes the place of
    the one in a sample, on the same batch and with the same noise. What is more than nothing is enough: no more is run.
    """
    sampler = mutator.sampler
    if not mutator.choices:
        return {}
    with sampler.watch.sleeping():
        if sampler.learns == "gradient" and sampler.paths == 1:
            return _gradients(mutator, batches, max(len(batches), len(samples)), step)
        return _differences(mutator, batches, samples, step)


def _gradients(mutator: DynamicWeightMutator, batches: Sequence[Any], count: int, step: Step) -> dict[str, float]:
    labels = list(mutator.choices)
    logits = [mutator.sampler.alpha(label) for label in labels]
    most = dict.fromkeys(labels, 0.0)
    for number in range(count):
        batch = batches[number % len(batches)]
        with torch.enable_grad():
            loss = mutator.architecture_loss(partial(step, batch))
        scale = max(abs(float(loss.detach())), 1e-12)
        found = torch.autograd.grad(loss, logits, allow_unused=True) if loss.requires_grad else [None] * len(logits)
        for label, gradient in zip(labels, found, strict=True):
            most[label] = max(most[label], 0.0 if gradient is None else float(gradient.norm()) / scale)
    return most


def _differences(
    mutator: DynamicWeightMutator, batches: Sequence[Any], samples: Sequence[Any], step: Step
) -> dict[str, float]:
    def loss_of(sample: Mapping[str, Any], number: int) -> float:
        with kept(mutator), torch.no_grad(), mutator.using(sample):  # the same statistics for all that are compared
            torch.manual_seed(number)  # and the same noise
            return distributed.mean(float(step(batches[number % len(batches)])))  # all processes run as many

    @cache
    def own(number: int) -> float:
        return loss_of(samples[number], number)

    def most(label: str) -> float:
        found = 0.0
        for number, sample in enumerate(samples):
            for value in mutator.choices[label].candidates:
                other = {**sample, label: value}
                if found > LEAST_LESSON:
                    return found
                if value != sample[label] and mutator.choices.broken(other) is None:
                    change = abs(loss_of(other, number) - own(number)) / max(abs(own(number)), 1e-12)
                    found = math.inf if math.isnan(change) else max(found, change)
        return found

    return {label: most(label) for label, choice in mutator.choices.items() if len(choice) > 1}
