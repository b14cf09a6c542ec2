"""What is searched: a network with a choice at three places. Weights of dynamic layers are made for each clip."""

from __future__ import annotations

import nni.nas.strategy  # noqa: F401 (before anything else of nni.nas, or its imports go round in a circle)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_dynconv import DynamicConv2d


class Space(ModelSpace):
    """The middle frame, mended by one filter over all frames and by a small network beside it.

    YOURS: candidates of one label take and give the same shapes; a static one may stand beside dynamic ones.

    Parameters
    ----------
    frames
        How many are seen.
    width
        Channels of `first` and `second`; `space_args` in experiment.yml sets it.
    """

    def __init__(self, frames: int = 3, width: int = 6):
        super().__init__()
        filters = {f"conv{k}": DynamicConv2d(frames, 1, k, padding=k // 2) for k in (3, 5, 7)}
        first = {
            "conv3": DynamicConv2d(frames, width, 3, padding=1),
            "static5": nn.Conv2d(frames, width, 5, padding=2),
        }
        second = {
            "conv3": DynamicConv2d(width, width, 3, padding=1),
            "static3": nn.Conv2d(width, width, 3, padding=1),
            "skip": nn.Identity(),
        }
        self.filter = LayerChoice(filters, label="filter")
        self.first = LayerChoice(first, label="first")
        self.second = LayerChoice(second, label="second")
        self.head = DynamicConv2d(width, 1, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:  # B frames H W -> B 1 H W
        middle = noisy.shape[1] // 2
        hidden = self.second(self.first(noisy).relu()).relu()
        return noisy[:, middle : middle + 1] + self.filter(noisy) + self.head(hidden)
