"""`conv2d` against a loop over the samples: values, gradients, one sample at a time, and what it refuses."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from functional.loops import assert_like_loop, loop_conv2d, tensors
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nni_dynconv import functional
from nni_dynconv.errors import DtypeError, ShapeError
from nni_dynconv.functional import conv2d, portable, without_kernels

CASES = {
    "dense": ((3, 4, 6, 5), (3, 6, 4, 3, 3), {}),
    "padded": ((3, 4, 6, 5), (3, 6, 4, 3, 3), {"padding": 1}),
    "strided": ((3, 4, 7, 6), (3, 6, 4, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "strided, large": ((2, 24, 129, 129), (2, 17, 24, 1, 3), {"stride": 2}),
    "dilated": ((3, 4, 7, 7), (3, 2, 4, 3, 3), {"dilation": 2, "padding": 2}),
    "grouped": ((3, 4, 6, 6), (3, 6, 2, 3, 2), {"groups": 2}),
    "pointwise": ((3, 4, 5, 5), (3, 6, 4, 1, 1), {}),
    "pointwise, strided": ((3, 4, 5, 5), (3, 6, 4, 1, 1), {"stride": 2}),
    "pointwise, grouped": ((3, 4, 5, 5), (3, 6, 2, 1, 1), {"groups": 2}),
    "pointwise, padded": ((3, 4, 3, 3), (3, 2, 4, 1, 1), {"padding": 1}),
    "depthwise": ((3, 4, 6, 6), (3, 4, 1, 3, 3), {"padding": 1, "groups": 4}),
    "depthwise 5x5": ((3, 4, 6, 6), (3, 4, 1, 5, 5), {"padding": 2, "groups": 4}),
    "depthwise 5x5, strided": ((3, 4, 7, 6), (3, 4, 1, 5, 5), {"padding": 2, "stride": 2, "groups": 4}),
    "depthwise, dilated": ((3, 4, 7, 7), (3, 4, 1, 3, 3), {"padding": 2, "dilation": 2, "groups": 4}),
    "depthwise, dilated, strided": (
        (3, 2, 8, 9),
        (3, 2, 1, 3, 3),
        {"padding": 1, "dilation": 2, "stride": 2, "groups": 2},
    ),
    "depthwise, two outputs a channel": ((3, 2, 6, 6), (3, 4, 1, 3, 3), {"padding": 1, "groups": 2}),
    "same": ((2, 3, 5, 5), (2, 2, 3, 3, 3), {"padding": "same"}),
    "same, even kernel": ((2, 3, 5, 5), (2, 2, 3, 2, 4), {"padding": "same", "dilation": (3, 1)}),
    "valid": ((2, 3, 5, 5), (2, 2, 3, 3, 3), {"padding": "valid"}),
    "options in lists": ((2, 3, 5, 5), (2, 2, 3, 3, 3), {"padding": [1, 1], "stride": [2]}),
    "one sample": ((1, 4, 6, 6), (1, 6, 2, 3, 3), {"groups": 2}),
}
cases = pytest.mark.parametrize(("x", "weight", "options"), CASES.values(), ids=CASES)


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def kernels(request):
    """Every test here with the compiled kernels, where they are built, and without."""
    with contextlib.nullcontext() if request.param == "kernels" else without_kernels():
        yield


@cases
@pytest.mark.parametrize("bias", [None, "shared", "own"])
def test_it_equals_the_loop(x, weight, options, bias):
    shape = {None: None, "shared": weight[1:2], "own": weight[:2]}[bias]
    assert_like_loop(conv2d, loop_conv2d, tensors(x, weight, shape), **options)


@cases
@pytest.mark.parametrize("bias", [None, "shared", "own"])
def test_shared_weights_equal_the_loop(x, weight, options, bias):
    shape = {None: None, "shared": weight[1:2], "own": weight[:2]}[bias]
    assert_like_loop(conv2d, loop_conv2d, tensors(x, weight[1:], shape), **options)


@cases
def test_the_portable_form_equals_the_loop(x, weight, options):
    with portable():
        assert_like_loop(conv2d, loop_conv2d, tensors(x, weight, weight[:2]), **options)


@cases
def test_gradients_pass_gradcheck(x, weight, options):
    inputs = tensors(x, weight, weight[:2])
    assert torch.autograd.gradcheck(lambda *args: conv2d(*args, **options), inputs, fast_mode=True)


@cases
def test_second_gradients_pass_gradgradcheck(x, weight, options):
    inputs = tensors(x, weight)
    assert torch.autograd.gradgradcheck(lambda x, w: conv2d(x, w, None, **options), inputs, fast_mode=True)


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_equal_the_loop(x, weight, options, dtype):
    assert_like_loop(conv2d, loop_conv2d, tensors(x, weight, weight[:2], dtype=dtype), **options)


@cases
@pytest.mark.parametrize("shared", [False, True])
def test_memory_layout_does_not_matter(x, weight, options, shared):
    def strange(x, weight):
        rolled = torch.stack([x, x], -1)[..., 0].contiguous(memory_format=torch.channels_last)
        return conv2d(
            rolled, torch.stack([weight, weight])[0].transpose(-1, -2).contiguous().transpose(-1, -2), **options
        )

    inputs = tensors(x, weight[1:] if shared else weight)
    assert_like_loop(strange, lambda x, w: loop_conv2d(x, w, **options), inputs)


@cases
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(x, weight, options):
    inputs = tensors((0, *x[1:]), (0, *weight[1:]), weight[1:2])
    y = conv2d(*inputs, **options)
    assert y.shape == (0, *loop_conv2d(*tensors(x, weight), **options).shape[1:])
    assert [g.shape for g in torch.autograd.grad(y.sum(), inputs)] == [one.shape for one in inputs]


@st.composite
def problems(draw, dtypes=(torch.float64, torch.float32)):
    B, G, H, W, Kh, Kw = [draw(st.integers(1, top)) for top in (4, 4, 12, 12, 5, 5)]
    inner, outer = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 2)]))
    options = {
        "stride": draw(st.tuples(*[st.integers(1, 3)] * 2)),
        "padding": draw(st.tuples(*[st.integers(0, 3)] * 2)),
        "dilation": draw(st.tuples(*[st.integers(1, 3)] * 2)),
        "groups": G,
    }
    for size, kernel, p, d in zip((H, W), (Kh, Kw), options["padding"], options["dilation"], strict=True):
        assume(size + 2 * p >= d * (kernel - 1) + 1)
    weight = (B, G * outer, inner, Kh, Kw)
    weight = weight[draw(st.booleans()) :]
    inputs = tensors((B, G * inner, H, W), weight, seed=draw(st.integers(0, 99)), dtype=draw(st.sampled_from(dtypes)))
    return inputs, options


@given(problems())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_problem_equals_the_loop(problem):
    inputs, options = problem
    assert_like_loop(conv2d, loop_conv2d, inputs, **options)


@given(problems(dtypes=(torch.float32,)), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_samples_do_not_see_each_other(problem, data):
    (x, weight), options = problem
    seen = data.draw(st.integers(0, x.shape[0] - 1))
    before = conv2d(x, weight, **options)[seen]
    gradient = torch.autograd.grad(before.sum(), x)[0]
    others = torch.arange(x.shape[0]) != seen
    assert not gradient[others].any()
    changed = x.detach().clone()
    changed[others] += 1
    torch.testing.assert_close(conv2d(changed, weight, **options)[seen], before, atol=0, rtol=0)


def test_a_static_layer_is_the_same_with_its_weights_given():
    layer = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.randn(3, 4, 7, 7)
    own = layer.weight.expand(3, *layer.weight.shape)
    torch.testing.assert_close(conv2d(x, own, layer.bias, 2, 1, groups=2), layer(x), atol=1e-5, rtol=1e-5)


def test_vmap_and_functional_gradients_go_through():
    x, weight = torch.randn(2, 3, 4, 6, 6), torch.randn(2, 3, 4, 1, 5, 5)
    y = torch.func.vmap(lambda x, w: conv2d(x, w, padding=2, groups=4))(x, weight)
    torch.testing.assert_close(y[1], conv2d(x[1], weight[1], padding=2, groups=4), atol=1e-5, rtol=1e-5)
    gradient = torch.func.grad(lambda w: conv2d(x[0], w, padding=2, groups=4).sum())(weight[0])
    leaf = weight[0].clone().requires_grad_()
    conv2d(x[0], leaf, padding=2, groups=4).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad, atol=1e-4, rtol=1e-4)


def test_autocast_gives_what_torch_gives():
    x, weight = torch.randn(3, 4, 6, 6), torch.randn(3, 4, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = [f(x, weight, padding=1, groups=4) for f in (conv2d, loop_conv2d)]
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, atol=6e-2, rtol=6e-2)


@pytest.mark.parametrize("batch", [3, 400])  # the larger one goes through in chunks
def test_autocast_reaches_the_gradients_of_a_depthwise_convolution(batch):
    """Without the compiled kernels the backward used to mix float32 and bfloat16, which torch refuses."""
    inputs = tensors((batch, 16, 20, 20), (batch, 16, 1, 5, 5), dtype=torch.float32)
    found = []
    for convolve in (conv2d, loop_conv2d):
        with torch.autocast("cpu", torch.bfloat16):
            y = convolve(*inputs, padding=2, groups=16)
        found.append(torch.autograd.grad(y.float().square().mean(), inputs))
    for mine, other in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, atol=2e-2 * float(other.abs().max()), rtol=0)


def test_autocast_leaves_double_precision_alone():
    """Without the compiled kernels a depthwise convolution used to cast it to bfloat16, which torch does not."""
    inputs = tensors((3, 16, 20, 20), (3, 16, 1, 5, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert_like_loop(conv2d, loop_conv2d, inputs, padding=2, groups=16)


@pytest.mark.parametrize("form", [portable, torch.no_grad])
def test_export_takes_a_dynamic_batch(form):
    class Layer(torch.nn.Module):
        def forward(self, x, weight):
            return conv2d(x, weight, padding="same", groups=4)

    batch = torch.export.Dim("batch", min=2)
    with form():
        program = torch.export.export(
            Layer(), (torch.randn(3, 4, 6, 6), torch.randn(3, 4, 1, 3, 3)), dynamic_shapes=({0: batch}, {0: batch})
        )
    x, weight = torch.randn(5, 4, 6, 6), torch.randn(5, 4, 1, 3, 3)
    torch.testing.assert_close(
        program.module()(x, weight),
        F.conv2d(x.reshape(1, 20, 6, 6), weight.reshape(20, 1, 3, 3), padding=1, groups=20).view(5, 4, 6, 6),
        atol=1e-5,
        rtol=1e-5,
    )


WRONG = {
    "channels": (
        (2, 3, 8, 8),
        (2, 4, 5, 3, 3),
        None,
        {},
        r"axis `Cin/G` is 3 in `x` with `groups=1` but 5 in `weight`",
    ),
    "batch": (
        (2, 3, 8, 8),
        (4, 4, 3, 3, 3),
        None,
        {},
        r"axis `B` is 2 in `x` but 4 in `weight`, which does not divide",
    ),
    "bias": ((2, 3, 8, 8), (4, 3, 3, 3), (5,), {}, r"axis `Cout` is 4 in `weight` but 5 in `bias`"),
    "bias batch": ((2, 3, 8, 8), (4, 3, 3, 3), (3, 4), {}, r"axis `B` is 2 in `x` but 3 in `bias`"),
    "bias rank": ((2, 3, 8, 8), (4, 3, 3, 3), (1, 1, 4), {}, r"`bias` has 3 axes, \(1, 1, 4\), but needs 1: Cout"),
    "x rank": ((3, 8, 8), (4, 3, 3, 3), None, {}, r"`x` has 3 axes, \(3, 8, 8\), but needs 4: B Cin H W"),
    "weight rank": ((2, 3, 8, 8), (4, 3, 3), None, {}, r"`weight` has 3 axes, \(4, 3, 3\), but needs 4 .* or 5"),
    "groups of x": ((2, 3, 8, 8), (4, 1, 3, 3), None, {"groups": 2}, r"`Cin` is 3 in `x`, which `groups=2` does not"),
    "groups of weight": ((2, 4, 8, 8), (3, 2, 3, 3), None, {"groups": 2}, r"`Cout` is 3 in `weight`, which `groups=2`"),
    "no groups": ((2, 4, 8, 8), (4, 4, 3, 3), None, {"groups": 0}, r"`groups` is 0, but must be a whole number"),
    "stride": ((2, 3, 8, 8), (4, 3, 3, 3), None, {"stride": 0}, r"`stride` is 0, but must be .* of 1 or more"),
    "padding": (
        (2, 3, 8, 8),
        (4, 3, 3, 3),
        None,
        {"padding": (1, 1, 1)},
        r"`padding` is \(1, 1, 1\), but must be one or",
    ),
    "padding word": (
        (2, 3, 8, 8),
        (4, 3, 3, 3),
        None,
        {"padding": "full"},
        r'`padding` is \'full\', but must be "same"',
    ),
    "same, strided": ((2, 3, 8, 8), (4, 3, 3, 3), None, {"padding": "same", "stride": 2}, r'"same"` needs stride 1'),
    "too small": ((2, 3, 4, 8), (4, 3, 3, 3), None, {"dilation": 2}, r"spans 5 along `H` .* has only 4. Pad more"),
}


@pytest.mark.parametrize(("x", "weight", "bias", "options", "text"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_words(x, weight, bias, options, text):
    given_bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ShapeError, match=r"^`conv2d`: .*" + text):
        conv2d(torch.zeros(x), torch.zeros(weight), given_bias, **options)


def test_an_error_lists_the_tensors_with_their_axes():
    with pytest.raises(
        ShapeError, match=r"\n  x: B Cin H W = \(2, 3, 8, 8\)\n  weight: D Cout Cin/G Kh Kw = \(4, 4, 3, 3, 3\)$"
    ):
        conv2d(torch.zeros(2, 3, 8, 8), torch.zeros(4, 4, 3, 3, 3))


def test_torch_compile_gives_the_same():
    compiled = torch.compile(conv2d, backend="eager", fullgraph=True)
    inputs = tensors((3, 4, 6, 6), (3, 4, 1, 5, 5))
    assert_like_loop(compiled, loop_conv2d, inputs, padding=2, groups=4)


@pytest.mark.parametrize("cast", ["x", "weight", "bias"])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "linear"])
def test_mixed_dtypes_are_refused_by_name(op, cast):
    """It used to end in torch's words, `expected scalar type Float but found Double`."""
    tensors = {"x": torch.randn(2, 4, 5, 5), "weight": torch.randn(2, 4, 4, 3, 3), "bias": torch.randn(4)}
    if op == "linear":
        tensors |= {"x": torch.randn(2, 4), "weight": torch.randn(2, 4, 4)}
    tensors[cast] = tensors[cast].double()
    with pytest.raises(
        DtypeError,
        match=f"`{op}`: the dtypes differ: .*`{cast}` is float64.*the whole network with what makes its weights, `.to",
    ):
        getattr(functional, op)(*tensors.values())


def test_autocast_takes_mixed_dtypes():
    x, weight = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 4, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert functional.conv2d(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("number", [2**31, 2**40, 2**62])
@pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
def test_options_that_no_tensor_has_room_for_are_refused(option, number):
    """They used to abort the process, or to hang."""
    with pytest.raises(ShapeError, match=f"`{option}` is {number}, but none may be more than 2147483647"):
        functional.conv2d(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 3, 3), **{option: number})


@pytest.mark.parametrize("options", [{"padding": 2**30, "stride": 2**30}, {"dilation": 2**30, "padding": 2**30}])
def test_a_frame_of_zeros_that_is_far_larger_than_x_is_not_laid_out(options):
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 3, 3)
    expected = torch.cat([F.conv2d(one, own, **options) for one, own in zip(x.split(1), weight, strict=True)])
    torch.testing.assert_close(functional.conv2d(x, weight, **options), expected)


def test_an_output_that_no_memory_has_room_for_is_refused():
    with pytest.raises(ShapeError, match="the output would have the size .*, but none may be more than 2147483647"):
        functional.conv_transpose2d(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 3, 3), stride=2**30)


def test_a_negated_view_has_its_sign():
    """Kernels used to read the memory behind it, without a word."""
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 3, 3)
    torch.testing.assert_close(functional.conv2d(torch._neg_view(x), weight), functional.conv2d(-x, weight))
