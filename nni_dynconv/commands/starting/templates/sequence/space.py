"""What is searched: a network with a choice at two places. Weights of dynamic layers are made for each sequence."""

from __future__ import annotations

import nni.nas.strategy  # noqa: F401 (before anything else of nni.nas, or its imports go round in a circle)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_dynconv import DynamicConv1d


class Space(ModelSpace):
    """Three convolutions over time.

    YOURS: candidates of one label take and give the same shapes; a static one may stand beside dynamic ones.

    Parameters
    ----------
    width
        Channels of the first two; `space_args` in experiment.yml sets it.
    """

    def __init__(self, width: int = 8):
        super().__init__()
        first = {f"conv{k}": DynamicConv1d(1, width, k, padding=k // 2) for k in (5, 9, 15)}
        second = {
            "conv5": DynamicConv1d(width, width, 5, padding=2),
            "static5": nn.Conv1d(width, width, 5, padding=2),
            "skip": nn.Identity(),
        }
        self.first = LayerChoice(first, label="first")
        self.second = LayerChoice(second, label="second")
        self.head = DynamicConv1d(width, 1, 1)

    def forward(self, received: Tensor) -> Tensor:  # B 1 T -> B 1 T, more than zero where a one was sent
        return self.head(self.second(self.first(received).relu()).relu())
