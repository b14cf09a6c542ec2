"""What is searched: a network with a choice at two places. Weights of dynamic layers are made for each image."""

from __future__ import annotations

import nni.nas.strategy  # noqa: F401 (before anything else of nni.nas, or its imports go round in a circle)
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_dynconv import DynamicConv2d, DynamicLinear


class Space(ModelSpace):
    """Two convolutions and a linear layer.

    YOURS: candidates of one label take and give the same shapes; a static one may stand beside dynamic ones.

    Parameters
    ----------
    width
        Channels of both convolutions; `space_args` in experiment.yml sets it.
    """

    def __init__(self, width: int = 12):
        super().__init__()
        stem = {f"conv{k}": DynamicConv2d(1, width, k, padding=k // 2) for k in (1, 3, 5)}
        body = {
            "conv3": DynamicConv2d(width, width, 3, padding=1),
            "static3": nn.Conv2d(width, width, 3, padding=1),
            "skip": nn.Identity(),
        }
        self.stem = LayerChoice(stem, label="stem")
        self.body = LayerChoice(body, label="body")
        self.head = DynamicLinear(16 * width, 10)

    def forward(self, image: Tensor) -> Tensor:  # B 1 8 8 -> B 10
        features = self.body(self.stem(image).relu()).relu()
        return self.head(F.avg_pool2d(features, 2).flatten(1))
