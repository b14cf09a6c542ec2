"""One architecture is copied out of a supernet, and nothing else is."""

from __future__ import annotations

import torch
from spaces import CHANNELS, conv
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext


class Dropped(nn.Module):
    """A candidate that is not chosen, and counts its copies."""

    copies = 0

    def __deepcopy__(self, memo):
        Dropped.copies += 1
        return Dropped()

    def forward(self, x):
        return x


class Inner(ModelSpace):
    """A choice inside plain modules."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 1)
        choice = LayerChoice({"conv": conv(3), "dropped": Dropped()}, label="op")
        self.block = nn.Sequential(nn.Sequential(choice, nn.ReLU()), nn.ReLU())

    def forward(self, x):
        return self.block(self.stem(x))


def test_what_is_dropped_is_not_copied():
    """Each level of modules used to copy all choices below it, with what makes the weights of all of them."""
    mutator = DynamicWeightMutator(Inner(), sampler=RandomSampler(seed=0), context=VectorContext(3, dim=8))
    Dropped.copies = 0
    network = mutator.freeze({"op": "conv"})
    assert Dropped.copies == 0
    assert not any(isinstance(one, Dropped) for one in network.modules())

    x, context = torch.randn(2, 1, 5, 5), torch.randn(2, 3)
    with mutator.using({"op": "conv"}):
        assert torch.allclose(network(x, context), mutator(x, context=context), atol=1e-6)
    assert network.source is not mutator.source
