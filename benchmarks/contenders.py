"""The operators that ``ops.py`` measures, each computed in five ways, and what the machine allows at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nni_dynconv.functional import conv2d
from nni_dynconv.functional.explain import chosen

__all__ = ["OPS", "WAYS", "Layer", "Limits", "measure_limits"]

BLOCKS = tuple(1 << power for power in (29, 27, 26, 24, 22, 20, 18))  # bytes, read and written

Convolve = Callable[..., Tensor]


class Layer(NamedTuple):
    """One convolution of C to C channels that keeps H x W."""

    K: int
    dilation: int = 1
    depthwise: bool = False

    def weight_shape(self, C: int) -> tuple[int, int, int, int]:
        return (C, 1 if self.depthwise else C, self.K, self.K)

    def options(self, C: int) -> dict[str, int]:
        padding = self.dilation * (self.K - 1) // 2
        return {"padding": padding, "dilation": self.dilation, "groups": C if self.depthwise else 1}

    def path(self, B: int, C: int, HW: int, training: bool) -> str:
        shapes = ((B, C, HW, HW), (B, *self.weight_shape(C)))
        return chosen(*shapes, **self.options(C), training=training)[1].path


OPS: dict[str, tuple[Layer, ...]] = {
    "conv 3x3": (Layer(3),),
    "conv 5x5": (Layer(5),),
    "dilated conv 3x3": (Layer(3, 2),),
    "conv 1x1": (Layer(1),),
    "depthwise 3x3": (Layer(3, 1, True),),
    "depthwise 5x5": (Layer(5, 1, True),),
    "dilated depthwise 3x3": (Layer(3, 2, True),),
    "dilated depthwise 5x5": (Layer(5, 2, True),),
    "separable 3x3": (Layer(3, 1, True), Layer(1)),
    "separable 5x5": (Layer(5, 1, True), Layer(1)),
}


def _loop(x: Tensor, weight: Tensor, **options: int) -> Tensor:
    return torch.cat([F.conv2d(one[None], own, **options) for one, own in zip(x, weight, strict=True)])


def _grouped(x: Tensor, weight: Tensor, padding: int, dilation: int, groups: int) -> Tensor:
    B = x.shape[0]
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), None, 1, padding, dilation, B * groups)
    return y.view(B, -1, *y.shape[2:])


def _vmap(x: Tensor, weight: Tensor, **options: int) -> Tensor:
    return torch.func.vmap(lambda one, own: F.conv2d(one[None], own, **options)[0])(x, weight)


def _static(x: Tensor, weight: Tensor, **options: int) -> Tensor:  # one weight for all: what a plain network pays
    return F.conv2d(x, weight, **options)


WAYS: dict[str, Convolve] = {"ours": conv2d, "loop": _loop, "grouped": _grouped, "vmap": _vmap, "static": _static}


class Limits(NamedTuple):
    """What one process reaches with torch's thread count: sgemm, and copying blocks of several sizes."""

    flops: float  # per second
    copies: dict[int, float]  # bytes of a block -> bytes moved (read + written) per second

    def seconds(self, layers: tuple[Layer, ...], B: int, C: int, HW: int, training: bool) -> float:
        """The roofline: no way to compute these layers takes less."""
        return sum(self._layer(one, B, C, HW, training) for one in layers)

    def _layer(self, layer: Layer, B: int, C: int, HW: int, training: bool) -> float:
        # forward: x, weight -> y; backward: x, weight, dy -> dx, dweight
        weights = B * C * layer.weight_shape(C)[1] * layer.K**2
        flops, moved = 2 * weights * HW * HW, 4 * (2 * B * C * HW * HW + weights)
        size = next((one for one in sorted(self.copies) if one >= moved), max(self.copies))
        forward = max(flops / self.flops, moved / self.copies[size])
        extra = 4 * (3 * B * C * HW * HW + 2 * weights)
        backward = max(2 * flops / self.flops, extra / self.copies[size])
        return forward + backward if training else forward


def measure_limits(seconds: float = 1.0) -> Limits:
    """Measure the fastest sgemm and copies: by torch, and by the C library, which may write past the cache."""
    a, b = torch.randn(768, 768), torch.randn(768, 768)
    flops = 2 * 768**3 / _fastest(lambda: torch.mm(a, b), seconds / 4)
    copies, fastest = {}, 0.0
    for size in BLOCKS:  # a small block moves at least as fast as a large one
        one, two = torch.ones(size // 8), torch.empty(size // 8)
        array, other = one.numpy(), two.numpy()
        torchs = _fastest(lambda one=one, two=two: two.copy_(one), seconds / 8)
        librarys = _fastest(lambda array=array, other=other: np.copyto(other, array), seconds / 8)
        fastest = max(fastest, size / min(torchs, librarys))
        copies[size] = fastest
    return Limits(flops, dict(sorted(copies.items())))


def _fastest(function: Callable[[], object], seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best
