"""Weights given by factors: applied or formed, they give what the formed weight does, values and gradients."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
import torch
from functional.loops import TOLERANCES, assert_like_loop, loop_conv2d, loop_linear, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nni_dynconv import functional
from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import (
    LowRank,
    calling,
    conv2d,
    conv_transpose2d,
    deterministic,
    explain,
    linear,
    portable,
    without_kernels,
)
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.planning.problem import Choice

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
X, WEIGHT = (4, 32, 8, 8), (4, 32, 32, 3, 3)  # where the planner applies factors of rank 2


def parts(x, weight, rank, sets=None, base=False, bias=None, **more):
    """Random x, A, B, base and bias; ``sets`` is the size of the leading axis, or None."""
    lead = () if sets is None else (sets,)
    Cout, *rest = weight
    return tensors(x, (*lead, Cout, rank), (*lead, rank, *rest), tuple(weight) if base else None, bias, **more)


@contextmanager
def applying():
    """Let factors be applied, whatever the rules say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nni_dynconv.functional.planning.composed.choose", lambda *_: Choice("applied", "the test says so")
        )
        calling._plan_once.cache_clear()
        yield
    calling._plan_once.cache_clear()


def applied(rank, stride=1, padding=0, dilation=1, counts=None):
    def run(x, A, B, base=None, bias=None):
        with applying():
            return CONVOLUTIONS[rank](x, LowRank(A, B, base), bias, stride, padding, dilation, counts=counts)

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
    "narrow": ({"x": (4, 12, 8, 8), "weight": (4, 12, 12, 3, 3)}, "narrow"),
    "16 channels": ({"x": (4, 16, 8, 8), "weight": (4, 16, 16, 3, 3)}, None),
    "16 channels, base": ({"x": (4, 16, 8, 8), "weight": (4, 16, 16, 3, 3), "base": True}, "narrow"),
    "16 channels, 1x1": ({"x": (4, 16, 8, 8), "weight": (4, 16, 16, 1, 1), "padding": 0}, "narrow"),
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
        assert chosen(X, WEIGHT, padding=1, rank=2)[1] == ("formed", "this mode knows whole weights only")
        assert_like_loop(
            lambda x, A, B: conv2d(x, LowRank(A, B), padding=1),
            formed(2, padding=1),
            parts(X, WEIGHT[1:], 2, 4)[:3],
        )


def test_transforms_of_torch_func_form_the_kernel():
    x, A, B, *_ = (None if one is None else one.detach() for one in parts(X, WEIGHT[1:], 2, 4))
    _, tangent = torch.func.jvp(lambda A: conv2d(x, LowRank(A, B), padding=1), (A,), (A,))
    torch.testing.assert_close(tangent, conv2d(x, LowRank(A, B), padding=1))


@pytest.mark.slow
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
    with without_kernels():
        explain(X, WEIGHT, padding=1, rank=2)
        explain(X, WEIGHT, padding=1, rank=16)
    assert capsys.readouterr().out.splitlines() == [
        "conv2d, x: 4 32 8 8, weight: 4 32 32 3 3 (one set per sample), float32 on cpu, with gradients",
        "  path `applied`: few channels stand between the factors",
        "  output: 4 32 8 8; 163,840 multiply-adds",
        "conv2d, x: 4 32 8 8, weight: 4 32 32 3 3 (one set per sample), float32 on cpu, with gradients",
        "  the weight is formed, 589,824 multiply-adds: the kernel is narrow, or the rank large",
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


# A linear map


def map_applied(counts=None):
    def run(x, A, B, base=None, bias=None):
        with applying():
            return linear(x, LowRank(A, B, base), bias, counts=counts)

    return run


def map_planned(counts=None):
    def run(x, A, B, base=None, bias=None):
        return linear(x, LowRank(A, B, base), bias, counts=counts)

    return run


def map_loop(counts=None):
    def run(x, A, B, base=None, bias=None):
        return loop_linear(x, A @ B if base is None else A @ B + base, bias, counts=counts)

    return run


@st.composite
def maps(draw):
    """Shapes of a linear map, and how its weights are shared."""
    Cin, Cout, r, B = (draw(st.integers(1, top)) for top in (40, 40, 3, 6))
    between = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    sets = draw(st.sampled_from(["shared", "own", "equal", "blocks"]))
    counts = None
    if sets == "blocks":
        first = draw(st.integers(0, B))
        counts = (first, B - first)
    B = 2 * B if sets == "equal" else B
    lead = {"shared": None, "own": B, "equal": 2, "blocks": 2}[sets]
    bias = draw(st.sampled_from([None, (Cout,), (B, Cout), None if lead is None else (lead, Cout)]))
    return parts((B, *between, Cin), (Cout, Cin), r, lead, draw(st.booleans()), bias), counts


@given(maps())
@settings(max_examples=150, deadline=None)
def test_applied_factors_of_a_linear_map_equal_the_loop(problem):
    inputs, counts = problem
    assert_like_loop(map_applied(counts), map_loop(counts), inputs)


@given(maps())
@settings(max_examples=150, deadline=None)
def test_whatever_the_planner_picks_for_a_linear_map_equals_the_loop(problem):
    inputs, counts = problem
    assert_like_loop(map_planned(counts), map_loop(counts), inputs)


@pytest.mark.parametrize("run", [map_applied(), map_planned()])
@pytest.mark.parametrize("sets", [None, 0])
@pytest.mark.parametrize("base", [False, True])
def test_an_empty_batch_of_a_linear_map_gives_an_empty_output_and_zero_gradients(run, sets, base):
    inputs = parts((0, 3, 32), (32, 32), 2, sets, base)
    y = run(*inputs)
    assert y.shape == (0, 3, 32)
    assert not any(one.any() for one in torch.autograd.grad(y.sum(), [one for one in inputs if one is not None]))


def strided(one):
    """The same values, laid out by columns with a gap between all of them."""
    moved = torch.stack([one.detach().mT, torch.zeros_like(one.mT)], -1)[..., 0].mT
    return moved.requires_grad_()


@pytest.mark.parametrize("sets", [None, 8])
@pytest.mark.parametrize("base", [False, True])
def test_tensors_of_any_layout(sets, base):
    inputs = [None if one is None else strided(one) for one in parts((8, 2, 64), (64, 64), 4, sets, base)]
    assert not any(one.is_contiguous() for one in inputs if one is not None)
    for run in (map_applied(), map_planned()):
        assert_like_loop(run, map_loop(), inputs)


def test_gradients_of_the_applied_factors_of_a_linear_map_pass_gradcheck():
    inputs = parts((2, 3, 4), (5, 4), 2, 2, True, (2, 5))
    assert torch.autograd.gradcheck(map_applied(), inputs, fast_mode=True)


MAPS = {  # what differs from a map of 8 samples, with rank 4, and why it is formed
    "applied": ({}, None),
    "shared": ({"weight": (64, 64)}, None),
    "blocks": ({"weight": (2, 64, 64)}, None),
    "one sample": ({"x": (1, 64), "weight": (1, 64, 64)}, None),
    "rows": ({"x": (8, 100, 64)}, None),
    "unequal blocks": ({"weight": (2, 64, 64), "counts": (3, 5)}, "blocks are unequal"),
    "empty": ({"x": (0, 64), "weight": (0, 64, 64)}, "the batch is empty"),
    "small": ({"x": (8, 16), "weight": (8, 16, 16)}, "channels are few"),
    "large rank": ({"rank": 32}, "the rank is large"),
    "narrow": ({"weight": (8, 32, 32), "x": (8, 32)}, None),
    "narrow, shared": ({"weight": (32, 32), "x": (8, 32)}, "channels are few"),
    "base": ({"base": True}, None),
    "base, rows": ({"base": True, "x": (8, 100, 64)}, "beside the map with the base"),
    "base, blocks": ({"base": True, "x": (160, 64)}, "beside the map with the base"),
    "base, shared": ({"base": True, "weight": (64, 64)}, "all weights together are small"),
    "another device": ({"device": "cuda"}, "never measured"),
}


@pytest.mark.parametrize(("differs", "why"), MAPS.values(), ids=MAPS)
def test_the_rule_of_linear_maps(differs, why):
    given = {"x": (8, 64), "weight": (8, 64, 64), "rank": 4} | differs
    choice = chosen(given.pop("x"), given.pop("weight"), op="linear", **given)[1]
    assert choice.path == ("applied" if why is None else "formed")
    assert why is None or why in choice.why


@pytest.mark.parametrize("mode", [portable, deterministic])
def test_modes_form_the_weight_of_a_linear_map(mode):
    with mode():
        assert chosen((8, 64), (8, 64, 64), op="linear", rank=4)[1].why == "this mode knows whole weights only"
        assert_like_loop(map_planned(), map_loop(), parts((8, 64), (64, 64), 4, 8, True))


def test_transforms_of_torch_func_form_the_weight_of_a_linear_map():
    x, A, B, base, _ = (None if one is None else one.detach() for one in parts((8, 64), (64, 64), 4, 8, True))
    right = linear(x, LowRank(A, B, base))
    _, tangent = torch.func.jvp(lambda base: linear(x, LowRank(A, B, base)), (base,), (base,))
    torch.testing.assert_close(tangent, linear(x, base))
    each = torch.func.vmap(lambda x, A, B: linear(x[None], LowRank(A, B, base))[0])(x, A, B)
    torch.testing.assert_close(each, right)
    gradient = torch.func.grad(lambda A: linear(x, LowRank(A, B, base)).sum())(A)
    torch.testing.assert_close(gradient, x.unsqueeze(1) @ B.mT * torch.ones_like(A))


class Mapped(torch.nn.Module):
    def forward(self, x, A, B, base):
        return linear(x, LowRank(A, B, base))


def test_an_export_takes_the_factors_of_a_linear_map_with_a_dynamic_batch():
    batch = torch.export.Dim("batch", min=2)
    x, A, B, base, _ = (None if one is None else one.detach() for one in parts((8, 64), (64, 64), 4, 8, True))
    shapes = ({0: batch}, {0: batch}, {0: batch}, None)
    program = torch.export.export(Mapped(), (x[:3], A[:3], B[:3], base), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(x, A, B, base), linear(x, LowRank(A, B, base)))


@pytest.mark.whole
def test_a_linear_map_by_factors_compiles_into_one_graph():
    tensors_of = [one.detach() for one in parts((8, 64), (64, 64), 4, 8, True)[:4]]
    compiled = torch.compile(Mapped(), fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(*tensors_of), Mapped()(*tensors_of))
    torch._dynamo.reset()


def test_explain_tells_of_linear_maps(capsys):
    explain((8, 64), (8, 64, 64), op="linear", rank=4)
    explain((8, 100, 64), (2, 64, 64), op="linear", rank=4, base=True)
    explain((8, 100, 64), (64, 64), op="linear")
    assert capsys.readouterr().out.splitlines() == [
        "linear, x: 8 64, weight: 8 64 64 (one set per sample), float32 on cpu, with gradients",
        "  path `applied`: few channels stand between the factors",
        "  output: 8 64; 4,096 multiply-adds",
        "linear, x: 8 100 64, weight: 2 64 64 (2 sets for blocks of samples), float32 on cpu, with gradients",
        "  the weight is formed, 32,768 multiply-adds: beside the map with the base, forming the weight costs little",
        "  path `stacked`: the samples of a block are more rows of one matrix",
        "  output: 8 100 64; 3,276,800 multiply-adds",
        "linear, x: 8 100 64, weight: 64 64 (shared), float32 on cpu, with gradients",
        "  path `plain`: all samples share the weights",
        "  output: 8 100 64; 3,276,800 multiply-adds",
    ]


COUNTED = {  # the op, x, a set of weights, rank, base, options
    "linear": (linear, (8, 64), (64, 64), 4, False, {}),
    "linear, base": (linear, (8, 64), (64, 64), 4, True, {}),
    "linear, formed": (linear, (8, 100, 64), (64, 64), 4, True, {}),
    "1x1": (conv2d, (4, 64, 8, 8), (64, 64, 1, 1), 8, False, {}),
    "3x3": (conv2d, (4, 64, 8, 8), (64, 64, 3, 3), 8, False, {}),
    "3x3, base": (conv2d, (4, 64, 8, 8), (64, 64, 3, 3), 8, True, {}),
    "3x3, formed": (conv2d, (4, 16, 8, 8), (16, 16, 3, 3), 4, True, {}),
    "sequences": (functional.conv1d, (4, 64, 8), (64, 64, 3), 8, True, {}),
}


@pytest.mark.parametrize(("op", "x", "weight", "rank", "base", "options"), COUNTED.values(), ids=COUNTED)
def test_explain_counts_what_torch_counts(op, x, weight, rank, base, options, capsys):
    x_of, A, B, base_of, _ = parts(x, weight, rank, x[0], base, dtype=torch.float32)
    with without_kernels():  # torch counts its own operators
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            op(x_of, LowRank(A, B, base_of), **options)
        explain(x, (x[0], *weight), op=op.__name__, rank=rank, base=base, training=False, **options)
    counts = re.findall(r"([\d,]+) multiply-adds", capsys.readouterr().out)
    assert sum(int(one.replace(",", "")) for one in counts) == counter.get_total_flops() // 2


def test_wrong_shapes_of_a_linear_map_are_refused_in_words():
    weight = LowRank(torch.zeros(2, 4, 2), torch.zeros(2, 2, 5))
    with pytest.raises(ShapeError, match=r"`linear`: axis `Cin` is 6 in `x` but 5 in `weight`"):
        linear(torch.zeros(2, 6), weight)
    with pytest.raises(ShapeError, match=r"`LowRank`: axis `r` is 2 in `A` but 3 in `B`"):
        linear(torch.zeros(2, 5), LowRank(torch.zeros(2, 4, 2), torch.zeros(2, 3, 5)))


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
    with without_kernels():
        assert chosen(x, (50, *weight), **options)[1].path == path
        inputs = tensors(x, (50, *weight), (50, weight[0]) if bias else None)
        assert_like_loop(conv2d, loop_conv2d, inputs, **options)
