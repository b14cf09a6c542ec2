"""Fashion-MNIST at 14x14, a space of 81 small networks, and the one recipe that trains them all."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_dynconv.errors import ConfigError

__all__ = [
    "ARCHITECTURES",
    "EPOCH",
    "FOLDER",
    "FashionSpace",
    "Split",
    "batches",
    "load",
    "measure",
    "network",
    "train",
]

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CHANNELS, BATCH, TRAINED_ON, HELD_OUT = 24, 64, 5000, 5000
EPOCH = TRAINED_ON // BATCH  # steps
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4

Sample = dict[str, str]


class Split(NamedTuple):
    """Images ``(N, 1, 14, 14)`` and their classes ``(N,)``."""

    x: Tensor
    y: Tensor


def load(folder: Path = FOLDER) -> dict[str, Split]:
    """Return ``train`` and ``held_out``, both of the data set's training part, and ``test``, all of its test part.

    Raises
    ------
    ConfigError
        The files are not there.
    """
    parts = {name: Split(*_read(folder, name)) for name in ("train", "t10k")}
    x, y = parts["train"]
    end = TRAINED_ON + HELD_OUT
    return {
        "train": Split(x[:TRAINED_ON], y[:TRAINED_ON]),
        "held_out": Split(x[TRAINED_ON:end], y[TRAINED_ON:end]),
        "test": parts["t10k"],
    }


def _read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    try:
        images, classes = (_idx(folder / f"{part}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"Fashion-MNIST is not at {error.filename}. On Debian: `apt-get install dataset-fashion-mnist`; elsewhere "
            f"name the folder of its four idx files with `--data`."
        ) from None
    x = F.avg_pool2d(images.float()[:, None] / 255, 2)
    return (x - 0.286) / 0.3, classes.long()


def _idx(path: Path) -> Tensor:
    content = gzip.decompress(path.read_bytes())
    axes = content[3]  # the fourth byte counts them; a length of four bytes follows for each
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    return torch.frombuffer(bytearray(content[4 + 4 * axes :]), dtype=torch.uint8).view(shape)


class FashionSpace(ModelSpace):
    """A stem, four choices among three operators at 7x7, a head: 81 plain networks of torch's own layers."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(inputs, CHANNELS, 3, 2, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.body = nn.Sequential(*(LayerChoice(_candidates(), label=label) for label in LABELS))
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:  # B inputs 14 14 -> B 10
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def _candidates() -> dict[str, nn.Module]:
    def conv(K: int, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(CHANNELS, CHANNELS, K, padding=K // 2, groups=groups, bias=False)

    return {
        "conv3": nn.Sequential(conv(3), nn.BatchNorm2d(CHANNELS), nn.ReLU()),
        "sep3": nn.Sequential(conv(3, CHANNELS), conv(1), nn.BatchNorm2d(CHANNELS), nn.ReLU()),
        "pool": nn.MaxPool2d(3, 1, 1),
    }


LABELS = ("op1", "op2", "op3", "op4")
ARCHITECTURES: list[Sample] = [dict(zip(LABELS, ops, strict=True)) for ops in product(_candidates(), repeat=4)]


def network(sample: Mapping[str, str], seed: int) -> nn.Module:
    """Return one architecture, untrained."""
    torch.manual_seed(seed)
    return FashionSpace().freeze(dict(sample))


def batches(data: Split, seed: int) -> Iterator[Split]:
    """Yield batches for ever, each epoch in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(data.x), generator=generator)[: EPOCH * BATCH].split(BATCH):
            yield Split(data.x[rows], data.y[rows])


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return the SGD with which everything is trained."""
    return torch.optim.SGD(model.parameters(), rate, MOMENTUM, weight_decay=DECAY, nesterov=True)


def train(
    model: nn.Module,
    data: Split,
    steps: int,
    seed: int,
    rate: float = RATE,
    before: Callable[[int], object] = lambda step: None,
) -> None:
    """Train by SGD, the learning rate falling to zero along a cosine.

    Parameters
    ----------
    before
        Called with the number of each step before it, to draw an architecture.
    """
    optimizer = optimizer_of(model, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for step, (x, y) in zip(range(steps), batches(data, seed), strict=False):
        before(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure(model: Callable[[Tensor], Tensor], data: Split) -> tuple[float, float]:
    """Return accuracy in percent and mean loss, in the mode that the model is in."""
    logits = torch.cat([model(x) for x in data.x.split(500)])
    right = (logits.argmax(1) == data.y).double().mean()
    return 100 * float(right), float(F.cross_entropy(logits, data.y))
