"""The task of the numbered examples: scikit-learn's digits, turned by quarters; the context tells how far."""

from __future__ import annotations

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

from nni_dynconv.ops import DynamicConv2d, DynamicLinear, DynamicSepConv


class TurnedDigits(Dataset):
    """Items ``((image, turn), label)``: ``(1, 8, 8)``, ``(4,)`` one-hot, and the digit."""

    def __init__(self, train: bool):
        data = load_digits()
        images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
        split = 1400
        part = slice(0, split) if train else slice(split, None)
        self.images, self.labels = images[part], torch.tensor(data.target)[part]

    def __len__(self) -> int:
        return 4 * len(self.images)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        index, turn = divmod(index, 4)
        image = torch.rot90(self.images[index], turn, (1, 2))
        return (image, torch.eye(4)[turn]), self.labels[index]


class DigitSpace(ModelSpace):
    """Two convolutions to choose; all weights are made, for each sample, from the context."""

    def __init__(self, channels: int = 12):
        super().__init__()
        self.stem = LayerChoice(
            {f"conv{k}": DynamicConv2d(1, channels, k, padding=k // 2) for k in (1, 3, 5)}, label="stem"
        )
        self.body = LayerChoice(
            {
                "conv3": DynamicConv2d(channels, channels, 3, padding=1),
                "separable3": DynamicSepConv(channels, channels, 3),
                "static3": nn.Conv2d(channels, channels, 3, padding=1),
                "skip": nn.Identity(),
            },
            label="body",
        )
        self.head = DynamicLinear(16 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:  # B 1 8 8 -> B 10
        x = self.body(self.stem(x).relu()).relu()
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


class DeepDigitSpace(ModelSpace):
    """Five residual layers of one choice each, 3125 architectures."""

    def __init__(self, channels: int = 8, depth: int = 5):
        super().__init__()
        self.stem = DynamicConv2d(1, channels, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(channels, f"layer{number}") for number in range(depth))
        self.head = DynamicLinear(16 * channels, 10)

    @staticmethod
    def _layer(channels: int, label: str) -> LayerChoice:
        return LayerChoice(
            {
                "conv3": DynamicConv2d(channels, channels, 3, padding=1),
                "conv1": DynamicConv2d(channels, channels, 1),
                "separable5": DynamicSepConv(channels, channels, 5, norm=None),
                "pool": nn.AvgPool2d(3, stride=1, padding=1),
                "skip": nn.Identity(),
            },
            label=label,
        )

    def forward(self, x: Tensor) -> Tensor:  # B 1 8 8 -> B 10
        x = self.stem(x).relu()
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))
