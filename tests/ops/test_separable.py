"""The issue's two operators against torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nni_dynconv.errors import ShapeError
from nni_dynconv.ops import DynamicDilConv, DynamicSepConv
from nni_dynconv.testing.suites import OpSuite


class TestSepConv(OpSuite):
    def make(self):
        return DynamicSepConv(3, 4, 3, stride=2, norm=None)

    def example(self, batch):
        x = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        return x + 0.1 * x.sign()  # gradcheck does not like the kink of a ReLU

    def reference(self, x, weights):
        x = F.conv2d(x.relu(), weights["depthwise"], None, 2, 1, 1, 3)
        return F.conv2d(x, weights["pointwise"])


class TestDilConv(TestSepConv):
    def make(self):
        return DynamicDilConv(3, 4, 5, norm=None)

    def reference(self, x, weights):
        x = F.conv2d(x.relu(), weights["depthwise"], None, 1, 4, 2, 3)
        return F.conv2d(x, weights["pointwise"])


def test_normalisation_is_ordinary_state_and_not_counted():
    op = DynamicSepConv(3, 4, 3)
    assert op.num_generated == 3 * 9 + 4 * 3
    assert sum(parameter.numel() for parameter in op.parameters()) == 2 * 4
    assert isinstance(op.norm, nn.BatchNorm2d)


def test_in_evaluation_it_equals_the_static_layers_with_their_weights():
    layers = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False), nn.Conv2d(3, 4, 1, bias=False)
    )
    op, x = DynamicDilConv(3, 4, 3).eval(), torch.randn(2, 3, 8, 8)
    weights = {"depthwise": layers[1].weight, "pointwise": layers[2].weight}
    torch.testing.assert_close(op(x, weights), op.norm(layers(x)))


def test_an_even_kernel_keeps_the_size_with_same():
    op = DynamicSepConv(3, 4, 4, padding="same", norm=None)
    assert op(torch.zeros(2, 3, 7, 6), torch.zeros(op.num_generated)).shape == (2, 4, 7, 6)


def test_batch_statistics_are_those_of_the_batch_and_not_of_a_block():
    op, x = DynamicSepConv(3, 4, 3), torch.randn(5, 3, 6, 6)
    flat = torch.randn(2, op.num_generated)
    expected = op(x, flat[[0, 0, 0, 1, 1]])
    torch.testing.assert_close(op(x, flat, [3, 2]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", [DynamicSepConv, DynamicDilConv])
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((0, 8, 3), {}, "`in_channels` is 0, but must be a whole number of 1 or more"),
        ((4, 0, 3), {}, "`out_channels` is 0, but must be a whole number of 1 or more"),
        ((4, 8, (3, 3, 3)), {}, r"`kernel_size` is \(3, 3, 3\), but must be one or two whole numbers of 1 or more"),
        ((4, 8, 3), {"stride": 0}, "`stride` is 0, but must be one or two whole numbers of 1 or more"),
        ((4, 8, 3), {"dilation": 0}, "`dilation` is 0, but must be one or two whole numbers of 1 or more"),
        ((4, 8, 3), {"padding": "sme"}, '`padding` is \'sme\', but must be "same", "valid" or numbers'),
    ],
)
def test_arguments_that_cannot_be_are_refused_when_the_op_is_made(op, arguments, options, words):
    with pytest.raises(ShapeError, match=f"^`{op.__name__}`: {words}"):
        op(*arguments, **options)
