"""The rungs of the ladder: what a network may do with a context, from nothing to weights that are made anew.

Each is a network ``(x, context)`` around the same backbone. Blind, concatenated and FiLM are plain torch; the others
are the backbone, lifted.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.quality.worth.tasks import Task
from nni_dynconv import ChunkedController, RandomSampler, VectorContext, cost, functional, lift
from nni_dynconv.controllers import BasisController, Controller, ExpertsController

__all__ = ["CODE", "RUNGS", "STATIC", "Backbone", "counted", "make", "multiply_adds", "parameters", "widest"]

CODE, COUNTED = 16, 64
"""Size of a context's code, of FiLM too; samples of the batch that is counted."""


class Backbone(nn.Module):
    """Convolutions of kernel size 3; a classifier shrinks twice and averages, an image is added to the input's middle.

    Parameters
    ----------
    task
        Says how many axes, inputs and outputs.
    width
        Of the first convolution.
    more
        Channels beside those of the task.
    conv
        Makes the convolutions but the last of an image; torch's own by default.
    """

    def __init__(self, task: Task, width: int, more: int = 0, conv: Any = None):
        super().__init__()
        plain: Any = {1: nn.Conv1d, 2: nn.Conv2d}[task.axes]
        conv = plain if conv is None else conv
        self.classifies = task.outputs > 1
        wide, last = (2 * width, 2 * width) if self.classifies else (width, width)
        stride = 2 if self.classifies else 1
        self.convs = nn.ModuleList(
            [
                conv(task.channels + more, width, 3, padding=1, bias=not self.classifies),
                conv(width, wide, 3, stride, padding=1, bias=not self.classifies),
                conv(wide, last, 3, stride, padding=1, bias=not self.classifies),
            ]
        )
        norm: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[task.axes]
        self.channels = (width, wide, last)
        self.norms = nn.ModuleList(norm(one) if self.classifies else nn.Identity() for one in self.channels)
        self.head = nn.Linear(last, task.outputs) if self.classifies else plain(last, task.outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = norm(conv(features)).relu()
        if self.classifies:
            return self.head(features.flatten(2).mean(2))
        middle = MIDDLE
        return x[:, middle : middle + 1] + self.head(features)


MIDDLE = 1
"""Of three frames."""


class Blind(nn.Module):
    """Sees no context."""

    def __init__(self, task: Task, width: int):
        super().__init__()
        self.network = Backbone(task, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.network(x)


class Concatenated(nn.Module):
    """Sees the context as constant channels beside its input's."""

    def __init__(self, task: Task, width: int):
        super().__init__()
        self.network = Backbone(task, width, more=task.dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        planes = context.reshape(*context.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
        return self.network(torch.cat([x, planes], 1))


class Film(nn.Module):
    """Scales and shifts what each norm gives, by a small network of the context.

    References
    ----------
    Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018.
    """

    def __init__(self, task: Task, width: int):
        super().__init__()
        self.network = Backbone(task, width)
        self.code = nn.Sequential(nn.Linear(task.dim, CODE), nn.ReLU(), nn.Linear(CODE, CODE), nn.ReLU())
        self.affine = nn.ModuleList(nn.Linear(CODE, 2 * one) for one in self.network.channels)
        for one in self.affine:
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        code = self.code(context)
        handles = [
            norm.register_forward_hook(functools.partial(_changed, affine(code)))
            for norm, affine in zip(self.network.norms, self.affine, strict=True)
        ]
        try:
            return self.network(x)
        finally:
            for handle in handles:
                handle.remove()


def _changed(affine: Tensor, norm: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    scale, shift = affine.reshape(*affine.shape, *[1] * (output.ndim - 2)).chunk(2, dim=1)
    return output * (1 + scale) + shift


class Made(NamedTuple):
    """How weights are made."""

    controller: Callable[[], Controller]
    base: str
    delta: str
    rank: int = 4


def _lifted(made: Made, task: Task, width: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lifted = lift(Backbone(task, width), where=(nn.Conv1d, nn.Conv2d), base=made.base)
        mutator = lifted.mutator(
            sampler=RandomSampler(0), controller=made.controller(), context=VectorContext(task.dim, CODE),
            delta=made.delta, rank=made.rank,
        )  # fmt: skip
        return mutator.freeze({})


def _small() -> Controller:
    """Make a controller of hidden layers of 32, 56 multiply-adds a value: at the default of 128 they are 384."""
    return ChunkedController(hidden=32)


MADE = {
    "mixture": Made(lambda: ExpertsController(8, routing="sigmoid"), "none", "full"),
    "low rank": Made(_small, "learned", "low_rank"),
    "basis": Made(lambda: BasisController(hidden=32), "learned", "full"),
    "full": Made(_small, "learned", "full"),
}
STATIC: dict[str, Callable[[Task, int], nn.Module]] = {"blind": Blind, "concatenated": Concatenated, "film": Film}
RUNGS: dict[str, Callable[[Task, int], nn.Module]] = {
    **STATIC,
    **{name: functools.partial(_lifted, one) for name, one in MADE.items()},
}


def make(rung: str, task: Task, width: int, seed: int) -> nn.Module:
    """Make a network with random weights."""
    torch.manual_seed(seed)
    return RUNGS[rung](task, width)


@functools.cache
def multiply_adds(rung: str, task: Task, width: int) -> float:
    """Count the multiply-adds of a sample in a batch, each with a context of its own; making weights among them."""
    return counted(make(rung, task, width, 0).eval(), task)


def counted(network: nn.Module, task: Task) -> float:
    """Count what a network computes for a sample in a batch."""
    contexts = torch.tensor(task.training)[torch.arange(COUNTED) % len(task.training)]
    x, _ = task.draw("train", contexts, torch.Generator().manual_seed(0))
    with functional.without_kernels():  # torch counts its own operators
        return cost.multiply_adds(lambda: network(x, contexts)) / COUNTED


@functools.cache
def parameters(rung: str, task: Task, width: int) -> float:
    """Count parameters."""
    return float(sum(one.numel() for one in make(rung, task, width, 0).parameters()))


def widest(price: Callable[[str, Task, int], float], rung: str, task: Task, most: float) -> int:
    """Return the greatest width whose cost is at most that."""
    width = 1
    while price(rung, task, 2 * width) <= most:
        width *= 2
    step = width
    while step > 1:
        step //= 2
        width += step if price(rung, task, width + step) <= most else 0
    return width
