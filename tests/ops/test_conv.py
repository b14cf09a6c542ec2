"""`DynamicConv2d` and `DynamicLinear` against torch's own functions and layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nni_dynconv.errors import ParamsError, ShapeError
from nni_dynconv.ops import DynamicConv2d, DynamicLinear
from nni_dynconv.testing import OpSuite


class TestConv(OpSuite):
    def make(self):
        return DynamicConv2d(2, 4, 3, stride=2, padding=1)

    def example(self, batch):
        return torch.randn(batch, 2, 6, 5, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.conv2d(x, weights["weight"], weights["bias"], 2, 1)


class TestGroupedDilatedConv(TestConv):
    def make(self):
        return DynamicConv2d(2, 4, (3, 2), padding=(2, 1), dilation=2, groups=2, bias=False)

    def reference(self, x, weights):
        return F.conv2d(x, weights["weight"], None, 1, (2, 1), 2, 2)


class TestLinear(OpSuite):
    def make(self):
        return DynamicLinear(5, 3)

    def example(self, batch):
        return torch.randn(batch, 5, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.linear(x, weights["weight"], weights["bias"])


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 2),
    cin=st.integers(1, 2),
    cout=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    shared=st.booleans(),
)
def test_any_convolution_equals_the_loop(batch, groups, cin, cout, kernel, stride, padding, dilation, bias, shared):
    op = DynamicConv2d(cin * groups, cout * groups, kernel, stride, padding, dilation, groups, bias)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, cin * groups, 7, 6, generator=generator)
    flat = torch.randn(*([] if shared else [batch]), op.num_generated, generator=generator)
    layer = nn.Conv2d(cin * groups, cout * groups, kernel, stride, padding, dilation, groups, bias)
    expected = []
    for index in range(batch):
        row = flat if shared else flat[index]
        layer.weight.data = row[: layer.weight.numel()].view_as(layer.weight)
        if bias:
            layer.bias.data = row[layer.weight.numel() :]
        expected.append(layer(x[index : index + 1]))
    torch.testing.assert_close(op(x, flat), torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_it_equals_the_static_layer_with_its_weights():
    layer, op = nn.Conv2d(3, 6, 5, padding="same", groups=3), DynamicConv2d(3, 6, 5, padding="same", groups=3)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(op(x, {"weight": layer.weight, "bias": layer.bias}), layer(x))
    assert op.num_generated == sum(parameter.numel() for parameter in layer.parameters())


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match="groups = 2 must divide in_channels = 3 and out_channels = 4"):
        DynamicConv2d(3, 4, 3, groups=2)


class TestParams:
    op = DynamicConv2d(2, 4, 3)

    def test_a_flat_vector_of_the_wrong_length_is_refused(self):
        with pytest.raises(ParamsError, match=r"flat params must be \(76,\) or \(B, 76\), but are \(75,\)"):
            self.op(torch.zeros(1, 2, 5, 5), torch.zeros(75))

    def test_a_mapping_without_a_weight_is_refused(self):
        with pytest.raises(ParamsError, match=r"needs `bias` \(4,\), but params have only \['weight'\]"):
            self.op(torch.zeros(1, 2, 5, 5), {"weight": torch.zeros(4, 2, 3, 3)})

    def test_a_mapping_with_an_unknown_weight_is_refused(self):
        with pytest.raises(ParamsError, match="has no weight `wieght`. Did you mean `weight`?"):
            self.op(torch.zeros(1, 2, 5, 5), {"wieght": torch.zeros(4, 2, 3, 3)})

    def test_a_weight_of_the_wrong_shape_is_refused(self):
        weights = {"weight": torch.zeros(4, 2, 5, 5), "bias": torch.zeros(4)}
        with pytest.raises(
            ParamsError, match=r"`weight` must be \(4, 2, 3, 3\) or \(B, 4, 2, 3, 3\), but is \(4, 2, 5, 5\)"
        ):
            self.op(torch.zeros(1, 2, 5, 5), weights)
