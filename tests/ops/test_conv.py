"""Convolutions and `DynamicLinear` against torch's own functions and layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nni_dynconv import ops
from nni_dynconv.errors import ConfigError, ParamsError, ShapeError
from nni_dynconv.ops import (
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
    DynamicLinear,
)
from nni_dynconv.testing.suites import OpSuite


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


class TestReflectedConv(TestConv):
    def make(self):
        return DynamicConv2d(2, 4, (3, 2), padding="same", padding_mode="reflect")

    def reference(self, x, weights):
        return F.conv2d(F.pad(x, (0, 1, 1, 1), "reflect"), weights["weight"], weights["bias"])


class TestConv1d(TestConv):
    def make(self):
        return DynamicConv1d(2, 4, 3, padding=1, groups=2)

    def example(self, batch):
        return torch.randn(batch, 2, 6, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.conv1d(x, weights["weight"], weights["bias"], 1, 1, 1, 2)


class TestConv3d(TestConv):
    def make(self):
        return DynamicConv3d(2, 2, (2, 3, 1), stride=(1, 2, 1))

    def example(self, batch):
        return torch.randn(batch, 2, 3, 4, 3, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.conv3d(x, weights["weight"], weights["bias"], (1, 2, 1))


class TestConvTranspose1d(TestConv1d):
    def make(self):
        return DynamicConvTranspose1d(2, 4, 3, stride=2, output_padding=1)

    def reference(self, x, weights):
        return F.conv_transpose1d(x, weights["weight"], weights["bias"], 2, 0, 1)


class TestConvTranspose2d(TestConv):
    def make(self):
        return DynamicConvTranspose2d(2, 4, (3, 2), padding=(1, 0), groups=2, bias=False, dilation=2)

    def reference(self, x, weights):
        return F.conv_transpose2d(x, weights["weight"], None, 1, (1, 0), 0, 2, 2)


class TestConvTranspose3d(TestConv3d):
    def make(self):
        return DynamicConvTranspose3d(2, 2, 2, stride=2)

    def reference(self, x, weights):
        return F.conv_transpose3d(x, weights["weight"], weights["bias"], 2)


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


STATIC = {  # torch's layer, and the arguments of both
    "even kernel, same": ("Conv2d", (3, 6, 4), {"padding": "same", "groups": 3}),
    "one axis": ("Conv1d", (3, 6, 3), {"padding": 1, "stride": 2}),
    "three axes": ("Conv3d", (3, 6, (1, 2, 3)), {"dilation": (1, 1, 2)}),
    "transposed, one axis": ("ConvTranspose1d", (3, 6, 3), {"stride": 2}),
    "transposed": ("ConvTranspose2d", (3, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 3}),
    "transposed, three axes": ("ConvTranspose3d", (3, 6, 3), {"dilation": 2, "bias": False}),
    **{
        f"{mode}, {padding}, {rank} axes": (
            f"Conv{rank}d",
            (3, 6, (4, 3, 2)[:rank]),
            {"padding": padding, "padding_mode": mode, "dilation": {2: 1, "same": 3, "valid": 2}[padding]},
        )
        for mode in ("zeros", "reflect", "replicate", "circular")
        for padding in (2, "same", "valid")
        for rank in (1, 2, 3)
    },
}


@pytest.mark.parametrize(("name", "arguments", "options"), STATIC.values(), ids=STATIC)
def test_it_equals_the_static_layer_with_its_weights(name, arguments, options):
    layer, op = getattr(nn, name)(*arguments, **options), getattr(ops, f"Dynamic{name}")(*arguments, **options)
    x = torch.randn(2, 3, *[8] * (layer.weight.dim() - 2))
    torch.testing.assert_close(op(x, dict(layer.named_parameters())), layer(x), rtol=1e-4, atol=1e-5)
    assert op.num_generated == sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize(("mode", "most"), [("reflect", 2), ("circular", 3)])
def test_more_padding_than_a_mode_can_give_is_refused(mode, most):
    op = DynamicConv2d(1, 1, 9, padding=4, padding_mode=mode)
    with pytest.raises(
        ShapeError, match=rf"padding_mode = '{mode}' can pad axis 2 of x, .* by {most} at most, but .* 4"
    ):
        op(torch.zeros(1, 1, 3, 3), torch.zeros(op.num_generated))


def test_an_unknown_padding_mode_is_refused():
    with pytest.raises(ConfigError, match="DynamicConv2d: there is no padding_mode 'reflct'. Did you mean `reflect`?"):
        DynamicConv2d(1, 1, 3, padding_mode="reflct")


def test_a_transposed_output_sums_over_the_taps_that_meet_an_input_on_the_mean():
    op = DynamicConvTranspose2d(6, 4, (4, 3), stride=2, groups=2)
    assert op.weight_specs()[0].fan_in == 3 * (4 / 2) * (3 / 2)


WHOLE = "must be a whole number of 1 or more"
SIZES = "must be one or two whole numbers of 1 or more"
IMPOSSIBLE = [
    (DynamicConv2d, (3, 4, 3), {"groups": 2}, "`in_channels` is 3, which `groups=2` does not divide"),
    (DynamicConv2d, (4, 3, 3), {"groups": 2}, "`out_channels` is 3, which `groups=2` does not divide"),
    (DynamicConv2d, (4, 8, 3), {"groups": 0}, f"`groups` is 0, but {WHOLE}"),
    (DynamicConv1d, (4, 8, 3), {"groups": 0.5}, f"`groups` is 0.5, but {WHOLE}"),
    (DynamicConv2d, (0, 8, 3), {}, f"`in_channels` is 0, but {WHOLE}"),
    (DynamicConv3d, (4, "8", 3), {}, f"`out_channels` is '8', but {WHOLE}"),
    (DynamicConv2d, (4, 8, (3, 3, 3)), {}, rf"`kernel_size` is \(3, 3, 3\), but {SIZES}"),
    (DynamicConv3d, (4, 8, [3, 3]), {}, r"`kernel_size` is \(3, 3\), but must be one or three whole numbers of 1"),
    (DynamicConv2d, (4, 8, 0), {}, f"`kernel_size` is 0, but {SIZES}"),
    (DynamicConv2d, (4, 8, None), {}, f"`kernel_size` is None, but {SIZES}"),
    (DynamicConv2d, (4, 8, (3, 2.5)), {}, rf"`kernel_size` is \(3, 2.5\), but {SIZES}"),
    (DynamicConv1d, (4, 8, 3), {"stride": 0}, "`stride` is 0, but must be one whole number of 1 or more"),
    (DynamicConv2d, (4, 8, 3), {"dilation": 0}, f"`dilation` is 0, but {SIZES}"),
    (DynamicConv2d, (4, 8, 3), {"padding": -1}, "`padding` is -1, but must be one or two whole numbers of 0 or more"),
    (DynamicConv2d, (4, 8, 3), {"padding": "sme"}, '`padding` is \'sme\', but must be "same", "valid" or numbers'),
    (DynamicConv2d, (4, 8, 3), {"padding": "same", "stride": 2}, '`padding="same"` needs stride 1, but `stride` is'),
    (DynamicConvTranspose2d, (4, 8, 0), {}, f"`kernel_size` is 0, but {SIZES}"),
    (DynamicConvTranspose1d, (4, 8, 3), {"groups": 0}, f"`groups` is 0, but {WHOLE}"),
    (DynamicConvTranspose2d, (4, 8, 3), {"padding": "same"}, "`padding` is 'same', but must be one or two whole numb"),
    (DynamicConvTranspose2d, (4, 8, 3), {"output_padding": 1}, r"`output_padding` is \(1, 1\), but must be less than"),
    (DynamicLinear, (0, 8), {}, f"`in_features` is 0, but {WHOLE}"),
    (DynamicLinear, (8, -1), {}, f"`out_features` is -1, but {WHOLE}"),
]


@pytest.mark.parametrize(("op", "arguments", "options", "words"), IMPOSSIBLE)
def test_arguments_that_cannot_be_are_refused_when_the_op_is_made(op, arguments, options, words):
    """They ended in a division by zero, or in words about tensors once it ran; a third axis was taken for samples."""
    with pytest.raises(ShapeError, match=f"^`{op.__name__}`: {words}"):
        op(*arguments, **options)


def test_sizes_of_one_number_or_of_numpy_are_taken():
    assert DynamicConv2d(4, 8, (3,), stride=np.array([2, 1])).kernel_size == (3, 3)
    assert DynamicConv2d(4, 8, np.int64(3), padding=[1, 2]).padding == (1, 2)
    assert DynamicConvTranspose2d(4, 8, 3, stride=2, output_padding=1).output_padding == (1, 1)


def test_padding_by_own_values_goes_with_any_stride():
    op = DynamicConv2d(1, 1, 3, stride=2, padding="same", padding_mode="reflect", bias=False)
    assert op(torch.ones(1, 1, 5, 5), torch.ones(9)).shape == (1, 1, 3, 3)


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
