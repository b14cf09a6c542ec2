"""How a convolution is computed whose weights vary over the image, one set for each patch of a grid."""

from __future__ import annotations

import torch

from .geometry import Geometry
from .modes import Setting
from .problem import Choice

__all__ = ["choose", "possible"]

TILES = "patches of the output, with what they see of x around them, are samples or groups of another convolution"


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the form of one convolution; what it is made of is planned as any other."""
    if geometry.counts is not None:
        return Choice("split", "one convolution for each block of samples, which share a grid of weights")
    even = all(size % patches == 0 for size, patches in zip(geometry.out, geometry.grid, strict=True))
    traced = setting.portable or setting.transformed or torch.compiler.is_compiling()
    if even and setting.training and not traced:
        return Choice("tiled", f"{TILES}; they are of one size, and gradients are put together by blocks")
    return Choice("tiled_by_torch", TILES)


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List what can compute it: what is chosen."""
    return [choose(geometry, setting).path]
