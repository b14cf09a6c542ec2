"""Kernels that vary from place to place against the columns of `unfold`, multiplied and summed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from functional.loops import assert_like_loop, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.errors import DtypeError, ShapeError
from nni_dynconv.functional import conv2d_pixels, deterministic, portable, without_kernels


def loop_pixels(x, weight, kernel_size, stride=1, padding=0, dilation=1):
    """One product for each tap of each channel, of the columns that `unfold` lays out."""
    (B, C), (Ho, Wo) = x.shape[:2], weight.shape[2:]
    columns = F.unfold(x, kernel_size, dilation, padding, stride)
    taps = columns.shape[1] // C
    kernels = weight.reshape(B, -1, taps, Ho, Wo)
    return (columns.reshape(B, C, taps, Ho, Wo) * kernels.repeat_interleave(C // kernels.shape[1], 1)).sum(2)


@st.composite
def problems(draw, sizes=9, stride=2):
    B, G, inner = (draw(st.integers(1, top)) for top in (3, 3, 4))
    size, kernel = draw(st.tuples(*[st.integers(1, sizes)] * 2)), draw(st.tuples(*[st.integers(1, 4)] * 2))
    stride, dilation = (draw(st.tuples(*[st.integers(1, top)] * 2)) for top in (stride, 2))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(draw(st.integers(max(0, (span - n + 1) // 2), span)) for n, span in zip(size, spans, strict=True))
    each = zip(size, padding, spans, stride, strict=True)
    out = [(n + 2 * p - span) // s + 1 for n, p, span, s in each]
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.float32]))
    inputs = tensors((B, G * inner, *size), (B, G * kernel[0] * kernel[1], *out), dtype=dtype)
    return inputs, {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}


@settings(max_examples=80, deadline=None)
@given(problems())
def test_any_shape_equals_the_columns_in_value_and_gradient(problem):
    inputs, options = problem
    assert_like_loop(conv2d_pixels, loop_pixels, inputs, **options)


@settings(max_examples=20, deadline=None)
@given(problems(sizes=40, stride=1))
def test_wide_images_equal_the_columns_too(problem):
    inputs, options = problem
    inputs = [one.detach().float().requires_grad_() for one in inputs]
    assert_like_loop(conv2d_pixels, loop_pixels, inputs, **options)


@settings(max_examples=30, deadline=None)
@given(problems(), st.booleans())
def test_second_gradients_are_those_of_the_columns(problem, single):
    """In float32 too, where a kernel computes the first."""
    inputs, options = problem
    exact = [one.detach().double().requires_grad_() for one in inputs]
    ours = [one.detach().to(torch.float32 if single else torch.float64).requires_grad_() for one in inputs]

    def second(function, inputs):
        slopes = torch.autograd.grad(function(*inputs, **options).square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in slopes), inputs)

    for found, expected in zip(second(conv2d_pixels, ours), second(loop_pixels, exact), strict=True):
        assert (found.double() - expected).norm() <= 1e-4 * expected.norm() + 1e-6


def test_the_same_kernel_everywhere_is_a_depthwise_convolution():
    x, kernel = torch.randn(2, 3, 20, 19), torch.randn(3, 1, 4, 3)
    weight = kernel.reshape(1, 12 * 3, 1, 1).expand(2, -1, 20, 19)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 2)), kernel, groups=3)
    torch.testing.assert_close(conv2d_pixels(x, weight, (4, 3), padding="same"), expected, rtol=1e-4, atol=1e-5)


def test_only_what_is_given_is_kept_for_the_backward():
    x, weight = tensors((2, 8, 16, 16), (2, 49, 16, 16), dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        conv2d_pixels(x, weight, 7, padding=3)
    assert {one.data_ptr() for one in kept} == {x.data_ptr(), weight.data_ptr()}


def test_tensors_that_lie_in_any_order_are_read():
    x = torch.randn(2, 20, 20, 4).permute(0, 3, 1, 2).requires_grad_()
    weight = torch.randn(20, 20, 9, 2).permute(3, 2, 0, 1).requires_grad_()
    assert_like_loop(conv2d_pixels, loop_pixels, (x, weight), kernel_size=3, padding=1)


def test_every_mode_computes_the_same():
    inputs = tensors((2, 4, 18, 18), (2, 18, 18, 18), dtype=torch.float32)
    for mode in (portable, deterministic, without_kernels):
        with mode():
            assert_like_loop(conv2d_pixels, loop_pixels, inputs, kernel_size=3, padding=1)
    compiled = torch.compile(conv2d_pixels, fullgraph=True, backend="aot_eager")
    assert_like_loop(compiled, loop_pixels, inputs, kernel_size=3, padding=1)


def test_torchs_transforms_differentiate_too():
    x, weight = tensors((2, 2, 6, 6), (2, 9, 6, 6))

    def loss(x, weight):
        return conv2d_pixels(x, weight, 3, padding=1).pow(3).sum()

    expected = torch.autograd.grad(loss(x, weight), (x, weight))
    for found, right in zip(torch.func.grad(loss, (0, 1))(x, weight), expected, strict=True):
        torch.testing.assert_close(found, right)
    watched = {"check_batched_grad": True, "check_forward_ad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(
        lambda *inputs: conv2d_pixels(*inputs, 3, 2, 1), (x, weight[..., :3, :3]), **watched
    )


def test_autocast_takes_both_dtypes():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(2, 9, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv2d_pixels(x, weight, 3, padding=1)
    torch.testing.assert_close(y, loop_pixels(x, weight.float(), 3, padding=1), rtol=1e-4, atol=1e-4)


def test_an_empty_batch_gives_an_empty_output():
    assert conv2d_pixels(torch.zeros(0, 4, 8, 8), torch.zeros(0, 9, 8, 8), 3, padding=1).shape == (0, 4, 8, 8)


WRONG = {
    "taps": ((2, 6, 8, 8), (2, 8, 8, 8), r"`weight` \(2, 8, 8, 8\) has 8 channels, but needs 9 .* 6 channels of `x`"),
    "groups": ((2, 6, 8, 8), (2, 36, 8, 8), r"has 36 channels, but needs 9 .* some groups, whose number divides the 6"),
    "places": ((2, 6, 8, 8), (2, 9, 6, 8), r"axis `Ho` is 8 in the output but 6 in `weight`"),
    "samples": ((2, 6, 8, 8), (1, 9, 8, 8), r"axis `B` is 2 in `x` but 1 in `weight`"),
    "rank": ((6, 8, 8), (2, 9, 8, 8), r"`conv2d_pixels`: `x` has 3 axes, .* but needs 4: B C H W"),
    "weight rank": ((2, 6, 8, 8), (2, 9, 3, 8, 8), r"`weight` has 5 axes, .* but needs 4: B G\*Kh\*Kw Ho Wo"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told_by_axis(case):
    x, weight, message = case
    with pytest.raises(ShapeError, match=message):
        conv2d_pixels(torch.zeros(x), torch.zeros(weight), 3, padding=1)


def test_wrong_options_and_dtypes_are_told_in_its_name():
    x, weight = torch.zeros(2, 6, 8, 8), torch.zeros(2, 9, 8, 8)
    with pytest.raises(ShapeError, match=r"`conv2d_pixels`: `kernel_size` is 0, but must be one or two whole numbers"):
        conv2d_pixels(x, weight, 0)
    with pytest.raises(ShapeError, match=r'`conv2d_pixels`: `padding="same"` needs stride 1'):
        conv2d_pixels(x, weight, 3, 2, "same")
    with pytest.raises(DtypeError, match=r"`conv2d_pixels`: the dtypes differ: `x` is float32, `weight` is float64"):
        conv2d_pixels(x, weight.double(), 3, padding=1)
