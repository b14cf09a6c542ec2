"""Spaces with a planted best architecture: a norm or none behind each choice, and a teacher that one of them equals.

Spaces, tasks and `SEEDS` stand as they were before any estimator was changed by what they show. Paces are chosen on
other seeds.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import DynamicConv2d

CHANNELS, SIZE, BATCH = 2, 8, 16
SEEDS = range(10)
NORMS = {
    "batch": lambda: nn.BatchNorm2d(CHANNELS),
    "group": lambda: nn.GroupNorm(1, CHANNELS),
    "none": nn.Identity,
}


def conv(kernel_size, dilation=1):
    padding = dilation * (kernel_size // 2)
    return DynamicConv2d(CHANNELS, CHANNELS, kernel_size, padding=padding, dilation=dilation, bias=False)


def candidates(*names):
    made = {
        "conv1": lambda: conv(1),
        "conv3": lambda: conv(3),
        "dilated": lambda: conv(3, dilation=2),
        "mean": lambda: nn.AvgPool2d(3, 1, 1),
        "most": lambda: nn.MaxPool2d(3, 1, 1),
        "skip": nn.Identity,
    }
    return {name: made[name]() for name in names}


def moved(x, by):
    """Return images moved down and right, zeros behind them."""
    return F.pad(x, (by, 0, by, 0))[..., : x.shape[-2], : x.shape[-1]]


class Branches(ModelSpace):
    """Three choices side by side: a conv3 is right against others, a dilated one, and a pool that has no weights."""

    BEST: ClassVar = {"near": "conv3", "far": "dilated", "peak": "most"}

    def __init__(self, norm):
        super().__init__()
        self.near = LayerChoice(candidates("conv1", "conv3", "mean", "skip"), label="near")
        self.far = LayerChoice(candidates("conv1", "conv3", "dilated", "skip"), label="far")
        self.peak = LayerChoice(candidates("conv3", "mean", "most", "skip"), label="peak")
        self.norms = nn.ModuleList(NORMS[norm]() for _ in self.BEST)
        self.scale = nn.Parameter(torch.ones(()))  # without norms some architectures have no weights

    def forward(self, x):
        chosen = (self.near, self.far, self.peak)
        return self.scale * torch.cat([norm(one(x)) for one, norm in zip(chosen, self.norms, strict=True)], dim=1)

    @staticmethod
    def teacher(x):
        return torch.cat([moved(x, 1), moved(x, 2), F.max_pool2d(x, 3, 1, 1)], dim=1)


class Residual(ModelSpace):
    """Two residual blocks in a row: what the second is worth depends on the first."""

    BEST: ClassVar = {"first": "conv3", "second": "dilated"}

    def __init__(self, norm):
        super().__init__()
        self.first = LayerChoice(candidates("conv1", "conv3", "mean", "skip"), label="first")
        self.second = LayerChoice(candidates("conv1", "conv3", "dilated", "skip"), label="second")
        self.norms = nn.ModuleList(NORMS[norm]() for _ in self.BEST)
        self.scale = nn.Parameter(torch.ones(()))  # without norms some architectures have no weights

    def forward(self, x):
        x = x + self.norms[0](self.first(x))
        return self.scale * (x + self.norms[1](self.second(F.relu(x))))

    @staticmethod
    def teacher(x):
        x = x + moved(x, 1)
        return x + moved(F.relu(x), 2)


SPACES = {"branches": Branches, "residual": Residual}


def batch_of(space, generator):
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE, generator=generator)
    return x, space.teacher(x)
