"""What a call asks for: its geometry, and the setting that it is made in, which together decide on its path."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import Parameter

from ..library import loaded
from ..low_rank import LowRank
from .geometry import Geometry
from .modes import is_portable, is_transformed, modes

__all__ = ["PLAIN", "Choice", "Factors", "Problem", "Setting", "setting_of"]

PLAIN = (Tensor, Parameter)  # what the compiled kernels read: no subclass
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Factors(NamedTuple):
    """What of a weight that is given by factors its shape does not tell."""

    rank: int
    base: bool


class Setting(NamedTuple):
    """What, beside the shapes, decides."""

    device: str
    dtype: torch.dtype
    training: bool  # gradients are wanted
    kernels: bool = False  # the compiled kernels are there and may see these tensors
    portable: bool = False
    transformed: bool = False  # torch.func or forward-mode differentiation watches
    deterministic: bool = False  # what was measured on this machine must not count
    channels_last: bool = False  # x lies so in memory
    threaded: bool = False  # torch computes on more than one thread
    factors: Factors | None = None  # of the weight, where it is given by some


class Problem(NamedTuple):
    """One call, checked; what was measured is remembered by it."""

    geometry: Geometry  # of the whole weight; a sequence is an image of one row
    setting: Setting


class Choice(NamedTuple):
    """The name of a path and the reason for it."""

    path: str
    why: str


def setting_of(x: Tensor, weight: Tensor | LowRank) -> Setting:
    """Return what, beside the shapes, decides on the path; every call pays for it: the cheap questions come first."""
    on_cpu, dtype = x.is_cpu, x.dtype
    training = (x.requires_grad or weight.requires_grad) and torch.is_grad_enabled()
    transformed, deterministic = is_transformed(), modes.deterministic
    plain = type(weight) in PLAIN  # which is told sooner than that it is no LowRank
    factors = Factors(weight.rank, weight.base is not None) if not plain and isinstance(weight, LowRank) else None
    suits = (
        on_cpu
        and dtype is torch.float32
        and not transformed
        and type(x) in PLAIN
        and plain
        and weight.dtype is torch.float32  # type: ignore[union-attr]
        and weight.is_cpu  # type: ignore[union-attr]
        and loaded()
        and modes.kernels
        and not deterministic
        and not torch.is_autocast_enabled("cpu")
    )
    device = "cpu" if on_cpu else x.device.type
    channels_last = not x.is_contiguous() and _is_channels_last(x)
    threaded = not is_compiling() and torch.get_num_threads() > 1  # which no graph can ask
    portable = is_portable()
    return Setting(
        device, dtype, training, suits, portable, transformed, deterministic, channels_last, threaded, factors
    )


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() in FORMATS and x.is_contiguous(memory_format=FORMATS[x.dim()])
