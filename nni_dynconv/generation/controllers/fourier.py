"""Coordinates of a weight's values, and their Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FEATURES", "LARGEST", "channels", "features_of", "fourier", "offsets"]

FREQUENCIES = 16
FEATURES = 2 * FREQUENCIES
HIGHEST = 1000.0  # periods over an axis: channels of wide layers differ, and small axes are told apart by aliases
LARGEST = 7  # taps that have length one


def channels(size: int) -> Tensor:
    """Return the coordinates of channels, on an axis of length one.

    >>> channels(2)
    tensor([0.2500, 0.7500])
    """
    return (torch.arange(size) + 0.5) / size


def offsets(size: int) -> Tensor:
    """Return the coordinates of taps, from the kernel's centre: those of a 3x3 are among those of a 5x5.

    >>> offsets(3) * LARGEST
    tensor([-1.,  0.,  1.])
    """
    return (torch.arange(size) - (size - 1) / 2) / LARGEST


def features_of(axis: int, size: int) -> Tensor:  # size FEATURES
    """Return the features of all places on an axis of a weight: channels on the first two, then taps."""
    return fourier(channels(size)) if axis < 2 else fourier(offsets(size), stretch=math.sqrt(axis - 1))


def fourier(places: Tensor, stretch: float = 1.0) -> Tensor:  # n -> n FEATURES
    """Return cosines and sines of geometric frequencies, with unit mean square.

    Parameters
    ----------
    stretch
        Times every frequency, to tell axes apart.

    References
    ----------
    Tancik et al., Fourier features let networks learn high frequency functions in low dimensional domains, NeurIPS
    2020.

    Examples
    --------
    >>> fourier(channels(3)).square().mean(1)
    tensor([1.0000, 1.0000, 1.0000])
    """
    frequencies = stretch * HIGHEST ** (torch.arange(FREQUENCIES) / (FREQUENCIES - 1))
    angles = 2 * math.pi * places[:, None] * frequencies
    return math.sqrt(2.0) * torch.cat([angles.cos(), angles.sin()], dim=1)
