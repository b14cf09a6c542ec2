"""Operators whose weights are made by a controller: each is a thin shell over :mod:`nni_dynconv.functional`.

How weights are made is not known here; an op announces what it needs and applies what it is given.
"""

from typing import TYPE_CHECKING, Any

from .base import DynamicOp
from .call import DynamicCall as DynamicCall
from .conv import (
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
)
from .linear import DynamicLinear
from .norm import (
    DynamicBatchNorm1d,
    DynamicBatchNorm2d,
    DynamicBatchNorm3d,
    DynamicGroupNorm,
    DynamicInstanceNorm1d,
    DynamicInstanceNorm2d,
    DynamicInstanceNorm3d,
    DynamicLayerNorm,
)
from .patches import DynamicPatchConv2d
from .reading import ORIGINAL as ORIGINAL
from .separable import DynamicDilConv, DynamicSepConv

if TYPE_CHECKING:
    from .choices import ChoiceOp as ChoiceOp

__all__ = [
    "DynamicBatchNorm1d",
    "DynamicBatchNorm2d",
    "DynamicBatchNorm3d",
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicConvTranspose1d",
    "DynamicConvTranspose2d",
    "DynamicConvTranspose3d",
    "DynamicDilConv",
    "DynamicGroupNorm",
    "DynamicInstanceNorm1d",
    "DynamicInstanceNorm2d",
    "DynamicInstanceNorm3d",
    "DynamicLayerNorm",
    "DynamicLinear",
    "DynamicOp",
    "DynamicPatchConv2d",
    "DynamicSepConv",
]


def __getattr__(name: str) -> Any:
    if name == "ChoiceOp":  # it imports NNI, which networks read from a file do without
        from .choices import ChoiceOp

        return ChoiceOp
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
