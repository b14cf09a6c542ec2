"""How much whole networks without normalisation let activations grow at the start, beside independent layers.

A network is a row of 32 convolutions of 16 channels behind ReLUs: ``residual``, each added to what goes by, or
``plain``, with the gain for the ReLU (``nonlinearity="relu"``). What is measured is the size after 8, 16, 24 and 32
blocks over that of the input, a geometric mean over seeds, and its ratio to that of layers of torch whose weights are
drawn one by one, of the same variance. The bar, for residual networks: within a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_dynconv import DynamicWeightMutator, VectorContext
from nni_dynconv.generation.controllers import Controller
from nni_dynconv.generation.initialisation import stds_of
from nni_dynconv.ops import DynamicConv2d
from nni_dynconv.sites.spec import Site

__all__ = ["BAR", "DEPTHS", "Row", "independent", "measure"]

DEPTHS = (8, 16, 24, 32)
CHANNELS, BATCH, SIZE, DIM = 16, 4, 6, 8
BAR = 2.0


class Row(ModelSpace):
    """Convolutions one after the other; the sizes of what went by are kept."""

    def __init__(self, residual: bool):
        super().__init__()
        self.residual, self.sizes = residual, {}
        self.blocks = nn.ModuleList(DynamicConv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(max(DEPTHS)))

    def forward(self, x: Tensor) -> Tensor:
        return _run(self.blocks, x, self.residual, self.sizes)


def _run(blocks: Sequence[Callable[[Tensor], Tensor]], x: Tensor, residual: bool, sizes: dict[int, float]) -> Tensor:
    start = x.square().mean()
    for depth, block in enumerate(blocks, start=1):
        x = x + block(x.relu()) if residual else block(x.relu())
        if depth in DEPTHS:
            sizes[depth] = float((x.square().mean() / start).log() / 2)
    return x


@torch.no_grad()
def independent(residual: bool, more: float, seeds: Sequence[int]) -> dict[int, float]:
    """Return the mean logarithms of the growth through layers that are drawn one by one, of ``more`` variance."""
    op = DynamicConv2d(CHANNELS, CHANNELS, 3, padding=1)
    stds = stds_of(Site("conv", "DynamicConv2d", op.weight_specs()), "hyperfan_in", "linear" if residual else "relu")
    runs: list[dict[int, float]] = []
    for seed in seeds:
        torch.manual_seed(seed)
        layers = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(max(DEPTHS))]
        for layer in layers:
            nn.init.normal_(layer.weight, std=stds["weight"] * more**0.5)
            nn.init.normal_(layer.bias, std=stds["bias"] * more**0.5)  # type: ignore[arg-type]
        runs.append({})
        _run(layers, torch.randn(BATCH, CHANNELS, SIZE, SIZE), residual, runs[-1])
    return _means(runs)


@torch.no_grad()
def measure(
    make: Callable[[], Controller], base: str, delta: str, residual: bool, seeds: Sequence[int]
) -> dict[int, float]:
    """Return the mean logarithms of the growth through a network whose weights a controller makes."""
    runs: list[dict[int, float]] = []
    for seed in seeds:
        torch.manual_seed(seed)
        controller, space = make(), Row(residual)
        if not residual:
            controller.nonlinearity = "relu"
        settings: dict[str, Any] = {"base": base, "delta": delta, "controller": controller}
        mutator = DynamicWeightMutator(space, context=VectorContext(DIM, DIM), **settings)
        mutator(torch.randn(BATCH, CHANNELS, SIZE, SIZE), context=torch.randn(BATCH, DIM))
        runs.append(dict(space.sizes))
    return _means(runs)


def _means(runs: Sequence[dict[int, float]]) -> dict[int, float]:
    return {depth: sum(run[depth] for run in runs) / len(runs) for depth in DEPTHS}


def ratios(ours: dict[int, float], reference: dict[int, float]) -> dict[str, float]:
    """Return how many times as much as independent layers a network grows, by depth."""
    return {str(depth): round(math.exp(ours[depth] - reference[depth]), 2) for depth in DEPTHS}
