"""Pure functions ``(x, weights) -> y``: shared or per sample is a shape, and the planner picks the path."""

from .conv import conv2d
from .explain import explain
from .linear import linear
from .modes import portable, without_kernels

__all__ = ["conv2d", "explain", "linear", "portable", "without_kernels"]
