"""``explain``: which path a convolution would take, and why, without running it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import kernels
from .geometry import Geometry, Pair, measure
from .modes import is_portable, wants_kernels
from .planner import Choice, Setting, choose

__all__ = ["chosen", "explain"]


def explain(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: int | Pair = 1,
    padding: str | int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    training: bool = True,
) -> None:
    """Print the path that ``conv2d`` takes for these shapes, and the reason.

    Parameters
    ----------
    x_shape, weight_shape : sequence of int
        ``B Cin H W``; ``Cout Cin/G Kh Kw`` or ``B Cout Cin/G Kh Kw``.
    stride, padding, dilation, groups
        As in :func:`~nni_dynconv.functional.conv2d`.
    dtype, device
        Of the tensors.
    training : bool
        Whether gradients are wanted.

    Examples
    --------
    >>> explain((8, 16, 32, 32), (8, 4, 16, 1, 1))
    conv2d, x: 8 16 32 32, weight: 8 4 16 1 1 (one set per sample), float32 on cpu, with gradients
      path `matmul`: a 1x1 kernel only mixes channels
      output: 8 4 32 32; 524,288 multiply-adds
    """
    problem = (x_shape, weight_shape, stride, padding, dilation, groups)
    geometry, (path, why) = chosen(*problem, dtype=dtype, device=device, training=training)
    kind = "one set per sample" if geometry.per_sample else "shared"
    gradients = "with gradients" if training else "forward only"
    print(
        f"conv2d, x: {_words(x_shape)}, weight: {_words(weight_shape)} ({kind}), "
        f"{str(dtype).removeprefix('torch.')} on {device}, {gradients}"
    )
    print(f"  path `{path}`: {why}")
    output = (geometry.B, geometry.Cout, geometry.Ho, geometry.Wo)
    print(f"  output: {_words(output)}; {_multiply_adds(geometry):,} multiply-adds")


def chosen(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: int | Pair = 1,
    padding: str | int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    training: bool = True,
) -> tuple[Geometry, Choice]:
    """What :func:`explain` prints, as data."""
    geometry = measure(tuple(x_shape), tuple(weight_shape), None, stride, padding, dilation, groups)
    kind = torch.device(device).type
    suits = kernels.loaded() and wants_kernels() and dtype == torch.float32 and kind == "cpu"
    return geometry, choose(geometry, Setting(kind, dtype, training, suits, is_portable()))


def _words(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))


def _multiply_adds(geometry: Geometry) -> int:
    outputs = geometry.B * geometry.Cout * geometry.Ho * geometry.Wo
    return outputs * geometry.Cin // geometry.G * geometry.Kh * geometry.Kw
