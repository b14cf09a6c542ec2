"""Pure functions ``(x, weights) -> y``: shared or per sample is a shape, and the planner picks the path."""

from .conv import conv1d, conv2d, conv3d
from .explain import explain
from .linear import linear
from .low_rank import LowRank
from .norm import affine, batch_norm, group_norm, instance_norm, layer_norm
from .planning.modes import deterministic, portable, without_kernels
from .planning.tuning import tune
from .transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d

__all__ = [
    "LowRank",
    "affine",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "deterministic",
    "explain",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "linear",
    "portable",
    "tune",
    "without_kernels",
]
