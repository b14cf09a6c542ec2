"""Convolutions whose weights vary from patch to patch against a loop over samples and patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from functional.loops import assert_like_loop, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import conv2d, deterministic, portable, without_kernels
from nni_dynconv.functional.explain import chosen


def own(sets, b, B, i, j, rank):
    """The set of a patch of a sample; `rank` is that of one set."""
    if sets is None or sets.dim() == rank:
        return sets
    if sets.dim() == rank + 3:
        sets = sets[b * len(sets) // B]
    return sets[i, j]


def loop_patches(x, weight, bias=None, **options):
    """Convolve each sample by the weights of each patch, and take of it the places of the patch."""
    (B, Gh, Gw), samples = (len(x), *weight.shape[-6:-4]), []
    for b in range(B):
        rows = []
        for i in range(Gh):
            row = []
            for j in range(Gw):
                y = F.conv2d(x[b : b + 1], own(weight, b, B, i, j, 4), own(bias, b, B, i, j, 1), **options)
                H, W = y.shape[2:]
                row.append(y[:, :, H * i // Gh : H * (i + 1) // Gh, W * j // Gw : W * (j + 1) // Gw])
            rows.append(torch.cat(row, 3))
        samples.append(torch.cat(rows, 2))
    return torch.cat(samples)


@st.composite
def problems(draw):
    B, G, inner, outer = (draw(st.integers(1, top)) for top in (3, 2, 2, 2))
    size, kernel, grid = (draw(st.tuples(st.integers(1, top), st.integers(1, top))) for top in (9, 3, 3))
    stride, dilation, padding = (draw(st.tuples(st.integers(low, 2), st.integers(low, 2))) for low in (1, 1, 0))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    out = [(n + 2 * p - span) // s + 1 for n, p, span, s in zip(size, padding, spans, stride, strict=True)]
    padding = tuple(p if n > 0 else p + 3 for p, n in zip(padding, out, strict=True))
    out = [(n + 2 * p - span) // s + 1 for n, p, span, s in zip(size, padding, spans, stride, strict=True)]
    grid = tuple(min(one, n) for one, n in zip(grid, out, strict=True))
    lead = draw(st.sampled_from([(), (B,), (1,)]))
    added = draw(st.sampled_from([(), grid, (*lead, *grid)]))
    x, weight = (B, G * inner, *size), (*lead, *grid, G * outer, inner, *kernel)
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": G}
    return tensors(x, weight, (*added, G * outer), dtype=dtype), options


@pytest.mark.whole
@settings(max_examples=60, deadline=None)
@given(problems())
def test_any_grid_equals_the_loop_in_value_and_gradient(problem):
    inputs, options = problem
    assert_like_loop(conv2d, loop_patches, inputs, **options)


@settings(max_examples=15, deadline=None)
@given(problems())
def test_second_gradients_are_those_of_the_loop(problem):
    inputs, options = problem
    inputs = [one.detach().double().requires_grad_() for one in inputs]

    def second(function):
        (slope,) = torch.autograd.grad(function(*inputs, **options).pow(3).sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), inputs[:2])

    for found, expected in zip(second(conv2d), second(loop_patches), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_patches_with_equal_weights_do_not_show(size, dtype):
    x, one = torch.randn(2, 4, *size, dtype=dtype), torch.randn(6, 4, 5, 5, dtype=dtype)
    alike = one.expand(2, 3, 4, *one.shape)
    torch.testing.assert_close(conv2d(x, alike, padding="same"), F.conv2d(x, one, padding=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [(6,), (2, 3, 6), (2, 2, 3, 6)])
def test_blocks_of_samples_have_grids_of_their_own(bias):
    x, weight, added = tensors((4, 4, 8, 9), (2, 2, 3, 6, 4, 3, 3), bias)
    assert_like_loop(conv2d, loop_patches, (x, weight, added), padding=1)
    uneven = conv2d(x, weight, added, padding=1, counts=[3, 1])
    rows = torch.tensor([0, 0, 0, 1])
    each = added[rows] if added.dim() == 4 else added
    torch.testing.assert_close(uneven, loop_patches(x, weight[rows], each, padding=1))


def test_samples_that_share_a_grid_may_have_biases_of_their_own():
    assert_like_loop(conv2d, loop_patches, tensors((3, 4, 8, 9), (2, 3, 6, 4, 3, 3), (3, 2, 3, 6)), padding=1)


def test_an_even_kernel_keeps_the_size_as_torch_does():
    x, one = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 4, 4)
    expected = F.conv2d(F.pad(x, (1, 2, 1, 2)), one)
    torch.testing.assert_close(conv2d(x, one.expand(2, 2, *one.shape), padding="same"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.whole
def test_every_mode_computes_the_same():
    x, weight = tensors((2, 4, 8, 8), (2, 2, 4, 6, 4, 3, 3), dtype=torch.float32)
    for mode in (portable, deterministic, without_kernels):
        with mode():
            assert_like_loop(conv2d, loop_patches, (x, weight), padding=1)
    compiled = torch.compile(conv2d, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight, padding=1), loop_patches(x, weight, padding=1), rtol=1e-4, atol=1e-4)


def test_torchs_transforms_differentiate_too():
    x, weight = tensors((2, 2, 6, 6), (2, 2, 3, 2, 2, 3, 3))

    def loss(x, weight):
        return conv2d(x, weight, padding=1).pow(3).sum()

    expected = torch.autograd.grad(loss(x, weight), (x, weight))
    for found, right in zip(torch.func.grad(loss, (0, 1))(x, weight), expected, strict=True):
        torch.testing.assert_close(found, right)
    watched = {"check_batched_grad": True, "check_forward_ad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(lambda *inputs: conv2d(*inputs, padding=1), (x, weight), **watched)


def test_an_empty_batch_gives_an_empty_output():
    x = torch.randn(0, 4, 8, 8)
    for lead in ((0,), (), (1,)):
        assert conv2d(x, torch.randn(*lead, 2, 2, 6, 4, 3, 3)).shape == (0, 6, 6, 6)


def test_explain_names_the_way():
    geometry, (path, _) = chosen((2, 4, 8, 8), (2, 2, 4, 6, 4, 3, 3), padding=1)
    assert (path, geometry.sets, geometry.multiply_adds) == ("tiled", 16, 2 * 6 * 4 * 9 * 64)
    assert chosen((2, 4, 9, 8), (2, 2, 4, 6, 4, 3, 3), padding=1)[1].path == "tiled_by_torch"
    assert chosen((4, 4, 9, 8), (2, 2, 4, 6, 4, 3, 3), padding=1)[1].path == "split"


WRONG = {
    "channels": ((2, 3, 8, 8), (2, 2, 2, 4, 5, 3, 3), None, r"axis `Cin/G` is 3 .* but 5 in `weight`"),
    "samples": ((4, 3, 8, 8), (3, 2, 2, 4, 3, 3, 3), None, r"axis `B` is 4 in `x` but 3 in `weight`"),
    "too many": ((2, 3, 8, 8), (7, 2, 4, 3, 3, 3), None, r"axis `Gh` has 7 patches, but the output has only 6 .* `H`"),
    "none": ((2, 3, 8, 8), (0, 2, 4, 3, 3, 3), None, r"`Gh` is 0, but must be a whole number of 1 or more"),
    "bias": ((2, 3, 8, 8), (2, 2, 4, 3, 3, 3), (2, 3, 4), r"axis `Gw` is 2 in `weight` but 3 in `bias`"),
    "bias sets": ((4, 3, 8, 8), (2, 2, 2, 4, 3, 3, 3), (4, 2, 2, 4), r"axis `D` is 2 in `weight` but 4 in `bias`"),
    "bias rank": ((2, 3, 8, 8), (2, 2, 4, 3, 3, 3), (2, 4), r"`bias` has 2 axes, \(2, 4\), but needs 1: Cout"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told_by_axis(case):
    x, weight, bias, message = case
    with pytest.raises(ShapeError, match=message):
        conv2d(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias))
