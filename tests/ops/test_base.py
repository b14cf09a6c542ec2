"""What an op of one's own gets: weights from the open forward, and blocks of samples one by one or all at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nni_dynconv import DynamicWeightMutator, VectorContext

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import ModelSpace

from nni_dynconv.ops import DynamicConv1d, DynamicConvTranspose2d, DynamicGroupNorm, DynamicOp, DynamicSepConv
from nni_dynconv.sites.spec import WeightSpec


class Scaled(DynamicOp):
    """An op that knows shared and per-sample weights only."""

    def weight_specs(self):
        return (WeightSpec("factor", (4,), 1),)

    def compute(self, x, weights):
        factor = weights["factor"]
        assert factor.dim() == 1 or len(factor) == len(x)
        return x * factor.reshape(*factor.shape, *[1] * (x.dim() - 2))


def test_an_op_without_counts_is_called_block_by_block():
    x, flat = torch.randn(5, 4, 3), torch.randn(2, 4)
    torch.testing.assert_close(Scaled()(x, flat, [3, 2]), Scaled()(x, flat[[0, 0, 0, 1, 1]]))


class Space(ModelSpace):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


SPACES = {
    "without counts": (lambda: (Scaled(),), (4, 3)),
    "one axis": (lambda: (DynamicConv1d(4, 4, 3), DynamicGroupNorm(2, 4)), (4, 5)),
    "two axes": (lambda: (DynamicSepConv(4, 4, 3), DynamicConvTranspose2d(4, 2, 2, stride=2)), (4, 5, 6)),
}


@pytest.mark.parametrize(("layers", "shape"), SPACES.values(), ids=SPACES)
def test_samples_of_one_context_share_the_weights_that_each_would_have_alone(layers, shape):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Space(layers=layers()), context=VectorContext(3, dim=4)).eval()
    x, context, index = torch.randn(6, *shape), torch.randn(3, 3), torch.tensor([2, 0, 2, 2, 0, 1])
    found, expected = mutator(x, context=context, index=index), mutator(x, context=context[index])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
