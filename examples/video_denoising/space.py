"""The model space of the quickstart."""

from __future__ import annotations

import nni.nas.strategy  # noqa: F401 (before anything under nni.nas.oneshot, or NNI's imports go round in a circle)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor

from nni_dynconv.ops import DynamicConv2d

from .data import FRAMES
from .networks import CHANNELS, DYNAMIC, candidates, combine


class DenoisingSpace(ModelSpace):
    """A small network with a choice at three places, and one dynamic convolution that is no choice.

    ``current + filter(frames) + head(relu(second(relu(first(frames)))))``

    Parameters
    ----------
    frames
        Noisy frames that are seen; the middle one is the current one.
    channels
        Width of ``first`` and ``second``.
    """

    def __init__(self, frames: int = FRAMES, channels: int = CHANNELS):
        super().__init__()
        choices = candidates(DYNAMIC, frames, channels)
        self.filter = LayerChoice(choices["filter"], label="filter")
        self.first = LayerChoice(choices["first"], label="first")
        self.second = LayerChoice(choices["second"], label="second")
        self.head = DynamicConv2d(channels, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:  # B frames H W -> B 1 H W
        return combine(self, frames)
