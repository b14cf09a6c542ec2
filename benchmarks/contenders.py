"""The operators that ``ops.py`` measures, each computed in five ways, and what the machine allows at best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timing import CPU, timed
from torch import Tensor

from nni_dynconv import functional
from nni_dynconv.functional.explain import chosen

__all__ = ["MORE", "OPS", "Convolve", "Layer", "Limits", "measure_limits", "ways"]

Convolve = Callable[..., Tensor]  # x, weight, **options
Shape = tuple[int, ...]

FRAMES = 4  # of a video


class Layer(NamedTuple):
    """One operator on C channels; what stands in a row with others keeps the shape of its input."""

    K: int
    dilation: int = 1
    depthwise: bool = False
    stride: int = 1
    outputs: int | None = None  # channels; C by default
    function: str = "conv2d"  # its name in this package and in torch

    def x_shape(self, B: int, C: int, HW: int) -> Shape:
        """As many values for every function: a sequence is as long as an image has places, a video has small frames."""
        if self.function == "linear":
            return B, HW * HW, C
        return B, C, *self._size(HW)

    def y_shape(self, B: int, C: int, HW: int) -> Shape:
        Cout = self.outputs or C
        if self.function == "linear":
            return B, HW * HW, Cout
        span, pad = self.dilation * (self.K - 1), self.options(C)["padding"]
        if self.function == "conv_transpose2d":
            return B, Cout, *[(n - 1) * self.stride - 2 * pad + span + 1 for n in self._size(HW)]
        return B, Cout, *[(n + 2 * pad - span - 1) // self.stride + 1 for n in self._size(HW)]

    def weight_shape(self, C: int) -> Shape:
        Cout = self.outputs or C
        if self.function == "linear":
            return Cout, C
        kernel = (self.K,) * len(self._size(1))
        channels = (C, Cout) if self.function == "conv_transpose2d" else (Cout, 1 if self.depthwise else C)
        return *channels, *kernel

    def options(self, C: int) -> dict[str, int]:
        if self.function == "linear":
            return {}
        padding = self.dilation * (self.K - 1) // 2
        groups = C if self.depthwise else 1
        return {"stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": groups}

    def path(self, B: int, C: int, HW: int, training: bool, device: torch.device = CPU) -> str:
        shapes = self.x_shape(B, C, HW), (B, *self.weight_shape(C))
        where = {"op": self.function, "device": device.type, "training": training}
        return chosen(*shapes, **self.options(C), **where)[1].path

    def multiply_adds(self, B: int, C: int, HW: int) -> int:
        applied = self.x_shape(B, C, HW)[2:] if self.function == "conv_transpose2d" else self.y_shape(B, C, HW)[2:]
        places = HW * HW if self.function == "linear" else math.prod(applied)
        return B * math.prod(self.weight_shape(C)) * places

    def _size(self, HW: int) -> Shape:
        return {"conv1d": (HW * HW,), "conv3d": (FRAMES, HW // 2, HW // 2)}.get(self.function, (HW, HW))


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
MORE: dict[str, tuple[Layer, ...]] = {  # at fewer shapes
    "conv 3x3 stride 2": (Layer(3, stride=2),),
    "depthwise 3x3 stride 2": (Layer(3, depthwise=True, stride=2),),
    "conv 5x5 to 3 outputs": (Layer(5, outputs=3),),
    "transposed conv 4x4 stride 2": (Layer(4, stride=2, function="conv_transpose2d"),),
    "conv1d 5": (Layer(5, function="conv1d"),),
    "conv3d 3x3x3": (Layer(3, function="conv3d"),),
    "linear": (Layer(1, function="linear"),),
}


def ways(function: str) -> dict[str, Convolve]:
    """Return how each contender computes a function of torch with a set of weights per sample.

    ``static`` is torch's own, with one weight for all: what a plain network pays.
    """
    torchs = getattr(F, function)
    grouped = _grouped_linear if function == "linear" else partial(_grouped, torchs)
    ours, loop, mapped = getattr(functional, function), partial(_loop, torchs), partial(_vmap, torchs)
    return {"ours": ours, "loop": loop, "grouped": grouped, "vmap": mapped, "static": torchs}


def _loop(torchs: Convolve, x: Tensor, weight: Tensor, **options: int) -> Tensor:
    return torch.cat([torchs(one[None], own, **options) for one, own in zip(x, weight, strict=True)])


def _grouped(torchs: Convolve, x: Tensor, weight: Tensor, groups: int, **options: int) -> Tensor:
    B = x.shape[0]
    y = torchs(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), groups=B * groups, **options)
    return y.view(B, -1, *y.shape[2:])


def _grouped_linear(x: Tensor, weight: Tensor) -> Tensor:
    return _grouped(F.conv1d, x.mT, weight.unsqueeze(-1), 1).mT


def _vmap(torchs: Convolve, x: Tensor, weight: Tensor, **options: int) -> Tensor:
    return torch.func.vmap(lambda one, own: torchs(one[None], own, **options)[0])(x, weight)


class Limits(NamedTuple):
    """What one process reaches with torch's thread count: sgemm, and copying blocks of several sizes."""

    flops: float  # per second
    copies: dict[int, float]  # bytes of a block -> bytes moved (read + written) per second

    def seconds(self, layers: tuple[Layer, ...], B: int, C: int, HW: int, training: bool) -> float:
        """The roofline: no way to compute these layers takes less."""
        return sum(self._layer(one, B, C, HW, training) for one in layers)

    def _layer(self, layer: Layer, B: int, C: int, HW: int, training: bool) -> float:
        # forward: x, weight -> y; backward: x, weight, dy -> dx, dweight
        x, y = math.prod(layer.x_shape(B, C, HW)), math.prod(layer.y_shape(B, C, HW))
        weights, flops = B * math.prod(layer.weight_shape(C)), 2 * layer.multiply_adds(B, C, HW)
        moved = 4 * (x + y + weights)
        size = next((one for one in sorted(self.copies) if one >= moved), max(self.copies))
        forward = max(flops / self.flops, moved / self.copies[size])
        extra = 4 * (2 * x + y + 2 * weights)
        backward = max(2 * flops / self.flops, extra / self.copies[size])
        return forward + backward if training else forward


class Load(NamedTuple):
    """What the limits of a kind of device are measured by."""

    sgemm: int  # rows and columns
    blocks: Shape  # powers of two of the bytes, read and written
    calls: int  # in a row: handing one over takes longer than a GPU needs for a small block


ON_CPU = Load(768, (29, 27, 26, 24, 22, 20, 18), 1)
ELSEWHERE = Load(8192, (29, 27, 25, 23, 21), 20)


def measure_limits(
    seconds: float = 1.0, device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
) -> Limits:
    """Measure the fastest sgemm and copies: by torch, and on a CPU by the C library, which may write past the cache."""
    load = ON_CPU if device.type == "cpu" else ELSEWHERE
    a, b = torch.randn(2, load.sgemm, load.sgemm, device=device)
    fastest = partial(_fastest, calls=load.calls, device=device, clock=clock)
    flops = 2 * load.sgemm**3 / fastest(lambda: torch.mm(a, b), seconds / 4)
    copies, best = {}, 0.0
    for size in (1 << power for power in load.blocks):  # a small block moves at least as fast as a large one
        one, two = torch.ones(size // 8, device=device), torch.empty(size // 8, device=device)
        times = [fastest(lambda one=one, two=two: two.copy_(one), seconds / 8)]
        if device.type == "cpu":
            array, other = one.numpy(), two.numpy()
            times.append(fastest(lambda array=array, other=other: np.copyto(other, array), seconds / 8))
        best = max(best, size / min(times))
        copies[size] = best
    return Limits(flops, dict(sorted(copies.items())))


def _fastest(
    function: Callable[[], object], seconds: float, calls: int, device: torch.device, clock: Callable[[], float]
) -> float:
    function()  # what happens only the first time
    best, left = float("inf"), seconds
    while left > 0:
        took = timed(function, calls, device, clock)
        best, left = min(best, took), left - took * calls
    return best
