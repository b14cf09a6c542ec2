"""The networks, as people write them for small images; nothing of this package."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETWORKS", "Small"]


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet18(width: int = 32) -> nn.Module:
    """He et al., CVPR 2016, with the stem for CIFAR."""
    widths = [width, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    strides = [1, 1, 2, 1, 2, 1, 2, 1]
    blocks = [Residual(*pair, stride) for *pair, stride in zip(widths, widths[1:], strides, strict=False)]
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))


class Inverted(nn.Module):
    """A depthwise convolution between two pointwise ones."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        grow = [nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *grow,
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.is_residual else y


def mobilenet_v2() -> nn.Module:
    """Sandler et al., CVPR 2018, half as wide, with strides for CIFAR."""
    rows = [(1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)]
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    inputs = 16
    for expansion, outputs, count, stride in rows:
        for number in range(count):
            layers.append(Inverted(inputs, outputs, stride if number == 0 else 1, expansion))
            inputs = outputs
    layers += [nn.Conv2d(inputs, 640, 1, bias=False), nn.BatchNorm2d(640), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(640, 10))


class UNet(nn.Module):
    """Ronneberger et al., MICCAI 2015, small: three scales, biases and no norms; its output is pooled for the loss."""

    def __init__(self, width: int = 16):
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.down1, self.down2, self.middle = _double(3, a), _double(a, b), _double(b, c)
        self.up2, self.up1 = nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)
        self.merge2, self.merge1 = _double(c, b), _double(b, a)
        self.last = nn.Conv2d(a, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.middle(F.max_pool2d(second, 2))
        y = self.merge2(torch.cat([self.up2(y), second], 1))
        y = self.merge1(torch.cat([self.up1(y), first], 1))
        return self.last(y).mean((2, 3))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class Small(nn.Sequential):
    """Seven convolutions and a linear layer, 72,586 weights and biases."""

    def __init__(self) -> None:
        widths, strides = (3, 16, 16, 32, 32, 48, 48, 48), (1, 1, 2, 1, 2, 1, 1)
        layers: list[nn.Module] = []
        for *pair, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv2d(*pair, 3, stride, 1), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "unet": UNet,
    "small": Small,
}
