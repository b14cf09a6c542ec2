"""Sets of weights that serve blocks of samples: every form against the loop, and what is refused."""

from __future__ import annotations

import pytest
import torch
from functional.loops import assert_like_loop, loop_conv2d, loop_linear, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import conv2d, explain, linear, portable
from nni_dynconv.functional.explain import chosen

CASES = {  # x, one set of weights, options, the form for two blocks of three samples
    "dense": ((6, 4, 6, 5), (6, 4, 3, 3), {"padding": 1}, "regrouped"),
    "grouped": ((6, 4, 6, 5), (6, 2, 3, 2), {"groups": 2, "stride": 2}, "regrouped"),
    "depthwise": ((6, 4, 6, 6), (4, 1, 3, 3), {"padding": 1, "groups": 4}, "regrouped"),
    "1x1": ((6, 4, 5, 5), (6, 4, 1, 1), {}, "stacked"),
    "1x1, strided": ((6, 4, 5, 5), (6, 4, 1, 1), {"stride": 2}, "regrouped"),
    "same, even kernel": ((6, 3, 5, 5), (2, 3, 2, 4), {"padding": "same"}, "regrouped"),
    "large": ((6, 3, 80, 60), (2, 3, 3, 3), {}, "split"),
}
cases = pytest.mark.parametrize(("x", "weight", "options", "form"), CASES.values(), ids=CASES)
biases = pytest.mark.parametrize("bias", [None, (), (1,), (2,), (6,)])


def make(x, weight, bias, sets=2, **more):
    return tensors(x, (sets, *weight), None if bias is None else (*bias, weight[0]), **more)


@cases
@biases
def test_equal_blocks_equal_the_loop(x, weight, options, form, bias):
    assert chosen(x, (2, *weight), dtype=torch.float64, **options)[1].path == form
    assert_like_loop(conv2d, loop_conv2d, make(x, weight, bias), **options)


@cases
@biases
def test_equal_blocks_in_single_precision_equal_the_loop(x, weight, options, form, bias):
    assert_like_loop(conv2d, loop_conv2d, make(x, weight, bias, dtype=torch.float32), **options)


@cases
@biases
@pytest.mark.parametrize("counts", [(1, 5), [6, 0]])
def test_unequal_blocks_equal_the_loop(x, weight, options, form, bias, counts):
    assert_like_loop(conv2d, loop_conv2d, make(x, weight, bias), counts=counts, **options)


@cases
def test_the_portable_form_equals_the_loop(x, weight, options, form):
    with portable():
        assert_like_loop(conv2d, loop_conv2d, make(x, weight, (2,)), **options)


@cases
def test_gradients_pass_gradcheck(x, weight, options, form):
    inputs = make((6, *[min(size, 6) for size in x[1:]]), weight, (2,))
    for counts in (None, (4, 2)):
        assert torch.autograd.gradcheck(
            lambda *args, c=counts: conv2d(*args, **options, counts=c), inputs, fast_mode=True
        )


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_equal_the_loop(x, weight, options, form, dtype):
    assert_like_loop(
        conv2d,
        loop_conv2d,
        make(x, weight, (2,), dtype=dtype),
        tolerance=dict(zip((torch.float32, torch.float16, torch.bfloat16), (2e-4, 2e-2, 0.1), strict=True))[dtype],
        **options,
    )


@cases
def test_memory_layout_does_not_matter(x, weight, options, form):
    def strange(x, weight):
        rolled = torch.stack([x, x], -1)[..., 0].contiguous(memory_format=torch.channels_last)
        return conv2d(rolled, weight.transpose(-1, -2).contiguous().transpose(-1, -2), **options)

    assert_like_loop(strange, lambda x, w: loop_conv2d(x, w, **options), make(x, weight, None)[:2])


@cases
@pytest.mark.parametrize("counts", [None, (0, 0)])
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(x, weight, options, form, counts):
    inputs = make((0, *x[1:]), weight, (2,))
    y = conv2d(*inputs, **options, counts=counts)
    assert y.shape == (0, *conv2d(*make(x, weight, (2,)), **options).shape[1:])
    assert not any(g.any() for g in torch.autograd.grad(y.sum(), inputs))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_blocks_equal_the_loop(data):
    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(sum))
    if data.draw(st.booleans()):
        counts = [counts[0] + 1] * len(counts)
    sets = {"own": (len(counts),), "all": (sum(counts),), "one": (1,), "shared": ()}
    lead, added = (sets[data.draw(st.sampled_from(sorted(sets)))] for _ in range(2))
    groups, kernel, stride, padding = (data.draw(st.integers(1, 2)) for _ in range(4))
    inputs = tensors(
        (sum(counts), 2 * groups, 5, 4),
        (*lead, groups, 2, kernel, kernel),
        (*added, groups),
        dtype=data.draw(st.sampled_from([torch.float64, torch.float32])),
    )
    options = {"stride": stride, "padding": padding - 1, "groups": groups, "counts": tuple(counts)}
    assert_like_loop(conv2d, loop_conv2d, inputs, **options)


@pytest.mark.parametrize("x", [(6, 5), (6, 2, 5), (6, 0, 5)])
@biases
@pytest.mark.parametrize("counts", [None, (1, 5), (6, 0)])
def test_linear_equals_the_loop(x, bias, counts):
    assert_like_loop(linear, loop_linear, make(x, (4, 5), bias), counts=counts)


def test_linear_takes_an_empty_batch():
    assert linear(torch.zeros(0, 3, 5), torch.zeros(2, 4, 5), torch.zeros(2, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize(("size", "kernel"), [(40, 3), (8, 3), (8, 1)])
def test_no_set_is_repeated_for_its_samples(size, kernel):
    x, weight = torch.randn(64, 8, size, size), torch.randn(2, 256, 8, kernel, kernel, requires_grad=True)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.extend(one for one in args if isinstance(one, torch.Tensor))
            return function(*args, **(kwargs or {}))

    with Watch():
        conv2d(x, weight, counts=None).sum().backward()
    assert seen and all(one.numel() != 64 * weight[0].numel() for one in seen)


WRONG = {
    "a number": (
        (6, 3, 8, 8),
        (4, 4, 3, 3, 3),
        None,
        None,
        r"`B` is 6 in `x` but 4 in `weight`, which does not divide",
    ),
    "a bias": ((6, 3, 8, 8), (4, 3, 3, 3), (4, 4), None, r"`B` is 6 in `x` but 4 in `bias`, which does not divide"),
    "another bias": ((6, 3, 8, 8), (2, 4, 3, 3, 3), (3, 4), None, r"axis `D` is 2 in `weight` but 3 in `bias`"),
    "sum": ((6, 3, 8, 8), (2, 4, 3, 3, 3), None, (2, 3), r"`counts` is \(2, 3\), but must be .* sum up to 6"),
    "negative": ((6, 3, 8, 8), (2, 4, 3, 3, 3), None, (7, -1), r"`counts` is \(7, -1\), but must be whole numbers"),
    "length": ((6, 3, 8, 8), (2, 4, 3, 3, 3), None, (2, 2, 2), r"`counts` has 3 numbers, but `weight` has 2 sets"),
    "none": ((6, 3, 8, 8), (0, 4, 3, 3, 3), None, None, r"`B` is 6 in `x` but 0 in `weight`, which does not divide"),
}


@pytest.mark.parametrize(("x", "weight", "bias", "counts", "text"), WRONG.values(), ids=WRONG)
def test_wrong_blocks_are_refused_in_words(x, weight, bias, counts, text):
    given_bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ShapeError, match=r"^`conv2d`: .*" + text):
        conv2d(torch.zeros(x), torch.zeros(weight), given_bias, counts=counts)


def test_explain_names_blocks_and_form(capsys):
    explain((8, 4, 16, 16), (2, 4, 4, 3, 3), dtype=torch.float64)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "conv2d, x: 8 4 16 16, weight: 2 4 4 3 3 (2 sets for blocks of samples), float64 on cpu, with gradients",
        "  path `regrouped`: the blocks of samples fit into the groups of one convolution",
    ]
