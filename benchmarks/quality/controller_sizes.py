"""How many parameters each controller has for a ResNet-20-size space, beside the weights that it makes, and its cost.

The space is ResNet-20 for 32x32 images, each convolution of its blocks with a choice of the kernel (1, 3 or 5). The
weights are those of the architecture of 3x3 kernels, which is ResNet-20 itself. The bar: chunked and low-rank
controllers have less than 0.3 parameters for each of its weights. Writes ``controller_sizes.json``; about a minute on
one core::

    python benchmarks/quality/controller_sizes.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.generation import controllers
from nni_dynconv.generation.controllers import Controller
from nni_dynconv.ops import DynamicConv2d, DynamicLinear
from nni_dynconv.sites.spec import Site

TABLE = Path(__file__).with_name("controller_sizes.json")
BAR, HELD = 0.3, ("chunked", "low_rank")
SETS = 8  # contexts whose weights are made at once
DIM = 32
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "chunked": controllers.ChunkedController,
    "low_rank": controllers.LowRankController,
    "coordinate": controllers.CoordinateController,
    "coordinate, transform": lambda: controllers.CoordinateController(nesting="transform"),
    "experts": controllers.ExpertsController,
    "basis": controllers.BasisController,
    "flat": controllers.FlatController,
}


class Block(nn.Module):
    """Two convolutions beside a shortcut that adds channels of zeros."""

    def __init__(self, name: str, Cin: int, Cout: int):
        super().__init__()
        self.stride, self.more = Cout // Cin, Cout - Cin
        self.first = DynamicConv2d(Cin, Cout, nni.choice(f"{name}a", [1, 3, 5]), padding="same", bias=False)
        self.second = DynamicConv2d(Cout, Cout, nni.choice(f"{name}b", [1, 3, 5]), padding="same", bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(Cout) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., :: self.stride, :: self.stride]
        y = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(y)) + F.pad(x, (0, 0, 0, 0, 0, self.more))).relu()


class ResNet20(ModelSpace):
    """He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2, with 10 classes.

    A block of stride 2 takes every other place before its first convolution, which changes no number of weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = DynamicConv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(f"block{number}", *pair) for number, pair in enumerate(pairs)))
        self.head = DynamicLinear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.norm(self.stem(x)).relu()).mean((2, 3)))


def measure(make: Callable[[], Controller]) -> tuple[dict[str, Any], Callable[[int], float]]:
    """Return what a controller has and makes, and what times a step of it."""
    torch.manual_seed(0)
    space = ResNet20()
    mutator = DynamicWeightMutator(
        space, sampler=RandomSampler(seed=0), controller=make(), context=VectorContext(DIM, DIM)
    )
    sample = dict.fromkeys(mutator.choices, 3)
    sites = mutator.plan(sample).sites
    with mutator.using(sample, context=torch.randn(1, DIM)):
        assert mutator(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    weights = sum(site.num_generated for site in sites)
    candidates = sum(site.num_generated for site in mutator.source.sites.values())
    parameters, frozen = size_of(mutator.controller), size_of(mutator.freeze(sample).source.controller)
    return {
        "parameters": parameters,
        "weights": weights,
        "ratio": round(parameters / weights, 3),
        "weights of all candidates": candidates,
        "ratio to all candidates": round(parameters / candidates, 3),
        "frozen": round(frozen / weights, 3),
        "multiply-adds a weight, 1 set": round(multiply_adds(mutator.controller, sites, 1) / weights, 1),
        f"multiply-adds a weight, {SETS} sets": round(
            multiply_adds(mutator.controller, sites, SETS) / weights / SETS, 1
        ),
    }, lambda sets: seconds_of(mutator.controller, sites, sets)


def size_of(module: nn.Module | None) -> int:
    """Count parameters."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def multiply_adds(controller: Controller, sites: Sequence[Site], sets: int) -> float:
    """Count those of matrix products in a forward."""
    with FlopCounterMode(display=False) as counter:
        controller.generate(sites, torch.randn(sets, DIM))
    return counter.get_total_flops() / 2


def seconds_of(controller: Controller, sites: Sequence[Site], sets: int) -> float:
    """Time one forward and backward."""
    context = torch.randn(sets, DIM)
    controller.zero_grad()
    start = time.perf_counter()
    torch.cat(controller.generate(sites, context), -1).sum().backward()
    return time.perf_counter() - start


def add_times(rows: dict[str, dict[str, Any]], steps: dict[str, Callable[[int], float]], rounds: int) -> None:
    """Time all controllers in turn, so that a busy moment of the machine meets each, and note ratios to the first."""
    for sets in (1, SETS):
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(rounds + 1):
            for name, step in steps.items():
                seconds = step(sets)
                if number:  # the first round warms up
                    times[name].append(seconds)
        first = next(iter(times.values()))
        for name, own in times.items():
            ratios = [one / other for one, other in zip(own, first, strict=True)]
            rows[name][f"time over chunked's, {sets} sets"] = round(median(ratios), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7, help="times that each is timed")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = {name: measure(make) for name, make in CONTROLLERS.items()}
    rows = {name: row for name, (row, _) in measured.items()}
    add_times(rows, {name: step for name, (_, step) in measured.items()}, options.rounds)
    head = list(next(iter(rows.values())))
    print("controller; " + "; ".join(head))
    for name, row in rows.items():
        print(f"{name:22}" + "".join(f"{row[key]:>12,}" for key in head), flush=True)
    holds = all(rows[name]["ratio"] < BAR for name in HELD)
    options.output.write_text(json.dumps({"bar": BAR, "held": HELD, "holds": holds, "rows": rows}, indent=1) + "\n")
    print(f"{' and '.join(HELD)}: {'below' if holds else 'NOT below'} {BAR} parameters a weight; {options.output}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
