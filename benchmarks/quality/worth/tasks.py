"""Three tasks whose context is known: it says what was done to each input, and what to do with it differs by that."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.quality import fashion
from examples.video_denoising.data import PatchSource, load_shots, make_noisy, normalise, psnr
from nni_dynconv.errors import ConfigError

__all__ = ["CLASSES", "TASKS", "Task"]

Context = tuple[float, ...]
Draw = Callable[[str, Tensor, torch.Generator], tuple[Tensor, Tensor]]
CLASSES = 10


class Task(NamedTuple):
    """A task, with contexts that are trained on, and others that lie between them and beyond them.

    Attributes
    ----------
    axes, channels
        Of the input.
    outputs
        Classes, or channels of an image.
    draw
        Takes ``train``, ``validation`` or ``test``, a context for each sample ``(B, d)`` and a generator; returns
        inputs and what is wanted.
    loss, score
        Of outputs and what is wanted; a score is better when it is higher.
    """

    name: str
    axes: int
    channels: int
    outputs: int
    draw: Draw
    training: tuple[Context, ...]
    between: tuple[Context, ...]
    beyond: tuple[Context, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    unit: str
    steps: int

    @property
    def dim(self) -> int:
        """Numbers of a context."""
        return len(self.training[0])


def accuracy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the share of samples that are classified right, in percent."""
    return 100 * (logits.argmax(1) == wanted).double().mean()


# Fashion-MNIST, turned


def turn(degrees: float) -> Context:
    """Return an angle as a context."""
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


@functools.cache
def _fashion() -> dict[str, fashion.Split]:
    parts = fashion.load()
    return {"train": parts["train"], "validation": parts["held_out"], "test": parts["test"]}


def turned(split: str, contexts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images ``(B, 1, 14, 14)``, turned about their middle by the angle that the context tells."""
    data = _fashion()[split]
    rows = torch.randint(len(data.x), (len(contexts),), generator=generator)
    cos, sin, none = contexts[:, 0], contexts[:, 1], torch.zeros(len(contexts))
    maps = torch.stack([cos, -sin, none, sin, cos, none], 1).unflatten(1, (2, 3))
    dark = data.x.amin()
    grid = F.affine_grid(maps, [len(rows), *data.x.shape[1:]], align_corners=False)
    return F.grid_sample(data.x[rows] - dark, grid, align_corners=False) + dark, data.y[rows]


# Video under noise


@functools.cache
def _video(split: str) -> PatchSource:
    return PatchSource(load_shots({"test": "unseen_shots"}.get(split, split)))


def noisy(split: str, contexts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw three frames ``(B, 3, 32, 32)`` under noise whose strength is the context, and the clean middle one."""
    clean = _video(split).draw(len(contexts), generator)
    middle = clean.shape[1] // 2
    return make_noisy(clean, contexts[:, 0] * FULL, generator), normalise(clean[:, middle : middle + 1])


FULL = 60.0
"""Strength of noise, of 255, that is a context of 1."""


def strength(sigma: float) -> Context:
    """Return a standard deviation, of 255, as a context."""
    return (sigma / FULL,)


def mean_psnr(result: Tensor, clean: Tensor) -> Tensor:
    """Return the mean PSNR in dB: each sample counts alike, however noisy it is."""
    return psnr(result, clean).mean()


# MNIST-1D, shrunk and reversed


@functools.cache
def _sequences() -> dict[str, fashion.Split]:
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise ConfigError("The task `warped` needs `mnist1d`. `pip install nni_dynconv[quality]` brings it.") from None
    parts: Any = make_dataset(get_dataset_args())
    x, y = torch.tensor(parts["x"]).float()[:, None], torch.tensor(parts["y"])
    test = fashion.Split(torch.tensor(parts["x_test"]).float()[:, None], torch.tensor(parts["y_test"]))
    return {"train": fashion.Split(x[:3500], y[:3500]), "validation": fashion.Split(x[3500:], y[3500:]), "test": test}


def warped(split: str, contexts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sequences ``(B, 1, 40)``, shrunk towards their middle and reversed as the context tells."""
    data = _sequences()[split]
    rows = torch.randint(len(data.x), (len(contexts),), generator=generator)
    x, length = data.x[rows], data.x.shape[-1]
    along = torch.linspace(-1, 1, length) * contexts[:, :1].exp() * contexts[:, 1:]  # where each point comes from
    grid = torch.stack([along, torch.zeros_like(along)], -1)[:, None]
    return F.grid_sample(x[:, :, None], grid, align_corners=True)[:, :, 0], data.y[rows]


def warp(shrunk: float, way: float) -> Context:
    """Return by how much a sequence is shrunk, and whether it is reversed (-1), as a context."""
    return math.log(shrunk), way


def _warps(*shrunk: float) -> tuple[Context, ...]:
    return tuple(warp(*pair) for pair in product(shrunk, (1.0, -1.0)))


TASKS = {
    task.name: task
    for task in (
        Task(
            "turned", 2, 1, CLASSES, turned,
            tuple(map(turn, range(-90, 91, 30))), tuple(map(turn, range(-75, 76, 30))),
            tuple(map(turn, (120, 150, 180))),
            F.cross_entropy, accuracy, "%", 1200,
        ),
        Task(
            "noisy", 2, 3, 1, noisy,
            tuple(map(strength, (5, 15, 30, 45, 60))), tuple(map(strength, (10, 22, 37, 52))),
            tuple(map(strength, (70, 80, 90))), lambda result, clean: -mean_psnr(result, clean), mean_psnr, "dB", 800,
        ),
        Task(
            "warped", 1, 1, CLASSES, warped,
            _warps(1, 1.3, 1.7, 2.2), _warps(1.14, 1.49, 1.93), _warps(0.85, 2.6),
            F.cross_entropy, accuracy, "%", 1500,
        ),
    )
}  # fmt: skip
