"""How a convolution is computed whose weights vary over the image, one set for each patch of a grid."""

from __future__ import annotations

from .geometry import Geometry
from .modes import Setting
from .problem import Choice

__all__ = ["choose", "possible"]


def choose(geometry: Geometry, setting: Setting) -> Choice:
    """Pick the form of one convolution; what it is made of is planned as any other."""
    if geometry.counts is not None:
        return Choice("split", "one convolution for each block of samples, which share a grid of weights")
    return Choice("tiled", "patches of the output, with what they see of x around them, are samples or groups")


def possible(geometry: Geometry, setting: Setting) -> list[str]:
    """List what can compute it: what is chosen."""
    return [choose(geometry, setting).path]
