"""Small spaces that several tests search."""

from __future__ import annotations

import threading

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, MutableConv2d, Repeat
from torch import nn

from nni_dynconv import DynamicWeightMutator, RandomSampler
from nni_dynconv.ops import DynamicConv2d, DynamicDilConv, DynamicLinear, DynamicSepConv

CHANNELS = 4


def differing_in_threads(mutator, run, expected, **tolerance):
    """Run each candidate of `op` in a thread of its own, all at once, and name those with an unexpected output."""
    wrong = []

    def repeat(name):
        for _ in range(20):
            with mutator.using({"op": name}):
                if not torch.allclose(run(), expected[name], **tolerance):
                    wrong.append(name)

    threads = [threading.Thread(target=repeat, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def conv(kernel_size=3):
    return DynamicConv2d(CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2)


class OneChoice(ModelSpace):
    """One choice among two dynamic ops and two ordinary modules."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 1)
        self.op = LayerChoice(
            {"3x3": conv(3), "5x5": conv(5), "pool": nn.AvgPool2d(3, 1, 1), "skip": nn.Identity()}, label="op"
        )

    def forward(self, x):
        return self.op(self.stem(x))


class Everything(ModelSpace):
    """Nested choices, an input choice, a depth, one label at two places, ops outside any choice."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 3, padding=1)
        inner = nn.Sequential(nn.ReLU(), LayerChoice([conv(1), nn.Identity()], label="inner"))
        self.outer = LayerChoice({"separable": DynamicSepConv(CHANNELS, CHANNELS, 5), "nested": inner}, label="outer")
        self.pair = nn.ModuleList(LayerChoice({"a": conv(3), "b": conv(5)}, label="shared") for _ in range(2))
        self.inputs = InputChoice(3, n_chosen=2, label="inputs")
        self.repeat = Repeat(
            lambda index: LayerChoice([conv(1), nn.Identity()], label=f"block{index}"), (0, 2), label="depth"
        )
        self.head = DynamicLinear(CHANNELS, 2)

    def forward(self, x):
        x = self.stem(x)
        y = self.outer(x)
        z = self.pair[1](self.pair[0](y))
        return self.head(self.repeat(self.inputs([x, y, z])).mean((2, 3)))


class CellSpace(ModelSpace):
    """A cell whose operators a factory makes."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 1)
        candidates = {
            "conv": lambda node, slot, source: conv(3),
            "dilated": lambda node, slot, source: DynamicDilConv(CHANNELS, CHANNELS, 3, norm=None),
            "skip": lambda node, slot, source: nn.Identity(),
        }
        self.cell = Cell(candidates, num_nodes=2, num_ops_per_node=2, num_predecessors=1, label="cell")

    def forward(self, x):
        return self.cell([self.stem(x)])


class PlainCellSpace(ModelSpace):
    """A cell whose operators are given: NNI mutates its choices one by one."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 1)
        self.cell = Cell([conv(1), conv(3)], num_nodes=2, num_predecessors=1, label="cell")

    def forward(self, x):
        return self.cell([self.stem(x)])


class WidthSpace(ModelSpace):
    """A static convolution with `nni.choice` arguments beside a dynamic one."""

    def __init__(self):
        super().__init__()
        self.stem = MutableConv2d(1, CHANNELS, nni.choice("kernel", [1, 3]), padding=nni.choice("padding", [0, 1]))
        self.conv = conv(3)

    def forward(self, x):
        return self.conv(self.stem(x))


def image(batch=3, seed=0):
    return torch.randn(batch, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def vector(batch=3, seed=1):
    return torch.randn(batch, 5, generator=torch.Generator().manual_seed(seed))


def fresh_dynamic(sample, seed):
    """The quickstart's network of one architecture, untrained."""
    from examples.video_denoising.data import FRAMES
    from examples.video_denoising.networks import FrameStatistics
    from examples.video_denoising.space import DenoisingSpace

    torch.manual_seed(seed)
    context = FrameStatistics(FRAMES)
    return DynamicWeightMutator(DenoisingSpace(), sampler=RandomSampler(seed), context=context, base="learned").freeze(
        sample
    )
