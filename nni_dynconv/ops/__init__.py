"""Operators whose weights are made by a controller. Each is a thin shell over :mod:`nni_dynconv.functional`."""

from .base import DynamicOp
from .conv import DynamicConv2d
from .linear import DynamicLinear
from .separable import DynamicDilConv, DynamicSepConv

__all__ = ["DynamicConv2d", "DynamicDilConv", "DynamicLinear", "DynamicOp", "DynamicSepConv"]
