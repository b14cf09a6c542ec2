"""Weights given by factors: applied or formed, they are the formed kernel's convolution, values and gradients."""

from __future__ import annotations

import pytest
import torch
from functional.loops import TOLERANCES, assert_like_loop, loop_conv2d, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv import functional
from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import LowRank, conv2d, conv_transpose2d, deterministic, explain, portable
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.low_rank import apply_factors

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
X, WEIGHT = (4, 32, 8, 8), (4, 32, 32, 3, 3)  # where the planner applies factors of rank 2


def parts(x, weight, rank, sets=None, base=False, bias=None, **more):
    """Random x, A, B, base and bias; ``sets`` is the size of the leading axis, or None."""
    lead = () if sets is None else (sets,)
    Cout, *rest = weight
    return tensors(x, (*lead, Cout, rank), (*lead, rank, *rest), tuple(weight) if base else None, bias, **more)


def applied(rank, stride=1, padding=0, dilation=1, counts=None):
    def run(x, A, B, base=None, bias=None):
        return apply_factors(CONVOLUTIONS[rank], x, LowRank(A, B, base), bias, (stride, padding, dilation), counts)

    return run


def formed(rank, stride=1, padding=0, dilation=1, counts=None):
    def run(x, A, B, base=None, bias=None):
        weight = (A @ B.flatten(A.dim() - 1)).unflatten(-1, B.shape[A.dim() - 1 :])
        weight = weight if base is None else weight + base
        return CONVOLUTIONS[rank](x, weight, bias, stride, padding, dilation, counts=counts)

    return run


@st.composite
def problems(draw):
    """Shapes and options of a convolution over 1 to 3 axes, and how its weights are shared."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    Cin, Cout, r = (draw(st.integers(1, top)) for top in (5, 6, 6))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    size = tuple(d * (k - 1) + draw(st.integers(1, 4)) for k, d in zip(kernel, dilation, strict=True))
    stride, padding = tuple(draw(st.integers(1, 2)) for _ in range(rank)), draw(st.sampled_from(["same", "valid", 1]))
    if padding == "same":
        stride = (1,) * rank
    B = draw(st.integers(0, 4))
    sets = draw(st.sampled_from(["shared", "own", "blocks"]))
    counts = None
    if sets == "blocks":
        first = draw(st.integers(0, B))
        counts = (first, B - first)
    lead = {"shared": None, "own": B, "blocks": 2}[sets]
    bias = draw(st.sampled_from([None, (Cout,), None if lead is None else (lead, Cout)]))
    inputs = parts((B, Cin, *size), (Cout, Cin, *kernel), r, lead, draw(st.booleans()), bias)
    return inputs, {"rank": rank, "stride": stride, "padding": padding, "dilation": dilation, "counts": counts}


@given(problems())
@settings(max_examples=150, deadline=None)
def test_applied_factors_equal_the_formed_kernel(problem):
    inputs, options = problem
    assert_like_loop(applied(**options), formed(**options), inputs)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_whatever_the_planner_picks_equals_the_formed_kernel(problem):
    inputs, options = problem
    counts, rank = options.pop("counts"), options.pop("rank")

    def ours(x, A, B, base=None, bias=None):
        return CONVOLUTIONS[rank](x, LowRank(A, B, base), bias, counts=counts, **options)

    assert_like_loop(ours, formed(rank, counts=counts, **options), inputs)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("base", [False, True])
def test_each_dtype_equals_the_formed_kernel(dtype, base):
    made = parts(X, WEIGHT[1:], 2, 4, base, (32,))
    inputs = [None if one is None else (one.detach() / 6).to(dtype).requires_grad_() for one in made]
    exact = [None if one is None else one.detach().double().requires_grad_() for one in inputs]
    ours = conv2d(inputs[0], LowRank(*inputs[1:4]), inputs[4], padding=1)
    right = formed(2, padding=1)(*exact)
    tolerance = 4 * TOLERANCES[dtype]
    torch.testing.assert_close(ours.double(), right, atol=tolerance, rtol=tolerance)
    leaves = [one for one in inputs if one is not None]
    found = torch.autograd.grad(ours.sum(), leaves)
    expected = torch.autograd.grad(right.sum(), [one for one in exact if one is not None])
    for mine, other in zip(found, expected, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(mine.double() / scale, other / scale, atol=tolerance, rtol=tolerance)


def test_gradients_of_applied_factors_pass_gradcheck():
    inputs = parts((2, 3, 4, 4), (4, 3, 3, 3), 2, 2, True, (2, 4))
    assert torch.autograd.gradcheck(applied(2, padding=1), inputs, fast_mode=True)


def test_samples_do_not_see_each_other():
    x, A, B, *_ = parts(X, WEIGHT[1:], 2, 4)
    gradient = torch.autograd.grad(conv2d(x, LowRank(A, B), padding=1)[1].sum(), x)[0]
    assert gradient[1].all()
    assert not gradient[[0, 2, 3]].any()


def test_applied_factors_keep_no_kernel_for_the_backward():
    """Of 4 samples with 32 x 32 channels: 36,864 values. Nor the shares of all taps, as torch's fold does."""
    x, A, B, *_ = parts(X, WEIGHT[1:], 2, 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        conv2d(x, LowRank(A, B), padding=1)
    sizes = sorted(one.untyped_storage().nbytes() // x.itemsize for one in kept)
    assert sizes == [4 * 2 * 32, 4 * 2 * 64, 4 * 2 * 32 * 9, x.numel()]


RULES = {  # what differs from X and WEIGHT with padding 1 and rank 2, and why it is formed
    "applied": ({}, None),
    "shared": ({"weight": (32, 32, 3, 3)}, "one kernel serves the whole batch"),
    "blocks": ({"weight": (2, 32, 32, 3, 3)}, "each a block of samples"),
    "one sample": ({"x": (1, 32, 8, 8), "weight": (1, 32, 32, 3, 3)}, "one kernel serves the whole batch"),
    "groups": ({"weight": (4, 32, 16, 3, 3), "groups": 2}, "wrong channels"),
    "narrow": ({"x": (4, 16, 8, 8), "weight": (4, 16, 16, 3, 3)}, "narrow"),
    "large rank": ({"rank": 16}, "the rank large"),
    "strided": ({"stride": 2}, "so few channels is slow"),
    "strided, eight channels between": ({"stride": 2, "rank": 8}, None),
    "base": ({"base": True}, None),
    "base, large image": ({"base": True, "x": (4, 32, 32, 32)}, "beside the convolution with the base"),
    "1x1": ({"weight": (4, 32, 32, 1, 1), "padding": 0}, None),
    "1x1, base": ({"weight": (4, 32, 32, 1, 1), "padding": 0, "base": True}, "beside the convolution with the base"),
    "another device": ({"device": "cuda"}, "never measured"),
    "volumes": ({"op": "conv3d", "x": (4, 32, 3, 8, 8), "weight": (4, 32, 32, 3, 3, 3)}, "never measured"),
    "sequences": ({"op": "conv1d", "x": (4, 32, 8), "weight": (4, 32, 32, 3)}, None),
    "transposed": ({"op": "conv_transpose2d"}, "wrong channels"),
}


@pytest.mark.parametrize(("differs", "why"), RULES.values(), ids=RULES)
def test_the_rule(differs, why):
    given = {"x": X, "weight": WEIGHT, "padding": 1, "rank": 2} | differs
    choice = chosen(given.pop("x"), given.pop("weight"), **given)[1]
    assert choice.path == ("applied" if why is None else "formed")
    assert why is None or why in choice.why


@pytest.mark.parametrize("mode", [portable, deterministic])
def test_modes_form_the_kernel(mode):
    with mode():
        assert chosen(X, WEIGHT, padding=1, rank=2)[1] == ("formed", "this mode knows whole kernels only")
        assert_like_loop(
            lambda x, A, B: conv2d(x, LowRank(A, B), padding=1),
            formed(2, padding=1),
            parts(X, WEIGHT[1:], 2, 4)[:3],
        )


def test_transforms_of_torch_func_form_the_kernel():
    x, A, B, *_ = (None if one is None else one.detach() for one in parts(X, WEIGHT[1:], 2, 4))
    _, tangent = torch.func.jvp(lambda A: conv2d(x, LowRank(A, B), padding=1), (A,), (A,))
    torch.testing.assert_close(tangent, conv2d(x, LowRank(A, B), padding=1))


def test_it_compiles_into_one_graph():
    x, A, B, *_ = (None if one is None else one.detach() for one in parts(X, WEIGHT[1:], 2, 4))
    compiled = torch.compile(
        lambda x, A, B: conv2d(x, LowRank(A, B), padding=1), fullgraph=True, backend="aot_eager", dynamic=True
    )
    torch.testing.assert_close(compiled(x, A, B), conv2d(x, LowRank(A, B), padding=1))
    torch._dynamo.reset()


def test_grouped_and_transposed_convolutions_take_factors_too():
    x, A, B, base, _ = parts((3, 4, 6, 6), (6, 2, 3, 3), 2, 3, True)
    weight = LowRank(A, B, base)
    torch.testing.assert_close(conv2d(x, weight, groups=2), conv2d(x, weight.whole(), groups=2))
    x, A, B, base, _ = parts((3, 6, 6, 6), (6, 2, 3, 3), 2, 3, True)
    weight = LowRank(A, B, base)
    torch.testing.assert_close(conv_transpose2d(x, weight), conv_transpose2d(x, weight.whole()))


def test_explain_says_that_factors_are_applied_or_formed_and_why(capsys):
    explain(X, WEIGHT, padding=1, rank=2)
    explain(X, WEIGHT, padding=1, rank=16)
    assert capsys.readouterr().out.splitlines() == [
        "conv2d, x: 4 32 8 8, weight: 4 32 32 3 3 (one set per sample), float32 on cpu, with gradients",
        "  path `applied`: few channels stand between the factors",
        "  output: 4 32 8 8; 2,359,296 multiply-adds",
        "conv2d, x: 4 32 8 8, weight: 4 32 32 3 3 (one set per sample), float32 on cpu, with gradients",
        "  the factors are formed: the kernel is narrow, or the rank large",
        "  path `grouped`: the batch fits into the groups of one convolution",
        "  output: 4 32 8 8; 2,359,296 multiply-adds",
    ]


WRONG = {
    "rank": ((2, 4, 2), (2, 3, 5, 3, 3), None, r"`LowRank`: axis `r` is 2 in `A` but 3 in `B`"),
    "sets": ((2, 4, 2), (3, 2, 5, 3, 3), None, r"`LowRank`: axis `D` is 2 in `A` but 3 in `B`"),
    "base": ((2, 4, 2), (2, 2, 5, 3, 3), (4, 6, 3, 3), r"`LowRank`: axis `Cin` is 5 in `B` but 6 in `base`"),
    "channels": ((2, 4, 2), (2, 2, 6, 3, 3), None, r"`conv2d`: axis `Cin/G` is 5 .* but 6 in `weight`"),
    "batch": ((4, 4, 2), (4, 2, 5, 3, 3), None, r"`conv2d`: axis `B` is 2 in `x` but 4 in `weight`"),
}


@pytest.mark.parametrize(("A", "B", "base", "text"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_words(A, B, base, text):
    weight = LowRank(torch.zeros(A), torch.zeros(B), None if base is None else torch.zeros(base))
    with pytest.raises(ShapeError, match=text):
        conv2d(torch.zeros(2, 5, 8, 8), weight)


# A convolution to few channels, which applied factors begin with


FEW = {  # x, one set of weights, options, the path
    "3x3": ((50, 16, 6, 7), (4, 16, 3, 3), {"padding": 1}, "folded"),
    "unequal": ((50, 24, 6, 9), (2, 24, 2, 5), {"padding": (0, 3)}, "folded"),
    "same, even": ((50, 16, 6, 7), (4, 16, 4, 2), {"padding": "same"}, "folded"),
    "dilated": ((50, 16, 9, 9), (3, 16, 3, 3), {"dilation": 2, "padding": 4}, "folded"),
    "strided": ((50, 16, 9, 9), (3, 16, 3, 3), {"stride": 2}, "grouped"),
    "more padded than the kernel reaches": ((50, 16, 9, 9), (3, 16, 3, 3), {"padding": 3}, "grouped"),
    "more channels": ((50, 16, 9, 9), (5, 16, 3, 3), {}, "grouped"),
}


@pytest.mark.parametrize(("x", "weight", "options", "path"), FEW.values(), ids=FEW)
@pytest.mark.parametrize("bias", [False, True])
def test_few_outputs_equal_the_loop(x, weight, options, path, bias):
    assert chosen(x, (50, *weight), **options)[1].path == path
    inputs = tensors(x, (50, *weight), (50, weight[0]) if bias else None)
    assert_like_loop(conv2d, loop_conv2d, inputs, **options)
