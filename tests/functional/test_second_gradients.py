"""First and second gradients of every function, by every path that can compute it, are those of float64.

With tensors that are views, transposed, expanded, in channels-last order, or start inside of their storage: a second
gradient used to be wrong where a kernel copied them.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nni_dynconv import functional
from nni_dynconv.functional import LowRank, calling
from nni_dynconv.functional.planning.measuring import measure
from nni_dynconv.functional.planning.modes import setting_of
from nni_dynconv.functional.planning.problem import Problem
from nni_dynconv.functional.planning.rules import possible

AXES = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}
AXES |= {f"conv_transpose{rank}d": -rank for rank in (1, 2, 3)}
LAYOUTS = ("contiguous", "flat", "expanded", "transposed", "channels_last", "offset", "negated")
SETS = ("shared", "per sample", "blocks")


def laid(leaf, shape, layout):
    """Lay a leaf, ``numel`` values in a row, out as a tensor of a shape; gradients go back into the leaf."""
    numel = torch.Size(shape).numel()
    if layout == "flat":  # a part of each row of a matrix, as controllers make weights
        return torch.cat([leaf.reshape(shape[0], -1), leaf.reshape(shape[0], -1)[:, :1]], 1)[:, :-1].reshape(shape)
    if layout == "expanded":
        return leaf[: numel // shape[0]].reshape(1, *shape[1:]).expand(shape)
    if layout == "transposed":
        return leaf.reshape(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)
    if layout == "channels_last" and len(shape) == 4:
        return leaf.reshape(shape).contiguous(memory_format=torch.channels_last)
    if layout == "offset":
        return torch.cat([leaf[:1], leaf])[1:].reshape(shape)
    if layout == "negated":
        return torch._neg_view(leaf.reshape(shape))
    return leaf.reshape(shape)


@st.composite
def calls(draw):
    """A function, shapes and layouts of its tensors, options, what is differentiated, and what decides the path."""
    op = draw(st.sampled_from(list(AXES)))
    rank, transposed = abs(AXES[op]), AXES[op] < 0
    B, groups = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 1, 2]))
    depthwise = draw(st.booleans()) and rank == 2 and not transposed
    Cin = draw(st.sampled_from([2, 4, 6])) * groups if not depthwise else draw(st.sampled_from([2, 4]))
    groups = Cin if depthwise else groups
    Cout = Cin if depthwise else draw(st.sampled_from([1, 2, 4])) * groups
    sets = draw(st.sampled_from(SETS))
    lead = {"shared": (), "per sample": (B,), "blocks": (max(B // 2, 1),)}[sets]
    if not rank:
        x, weight, options = (B, *draw(st.sampled_from([(), (3,)])), Cin), (*lead, Cout, Cin), {}
    else:
        size, k = [draw(st.integers(4, 9)) for _ in range(rank)], draw(st.sampled_from([1, 2, 3, 5]))
        x = (B, Cin, *size)
        weight = (*lead, *((Cin, Cout // groups) if transposed else (Cout, Cin // groups)), *[k] * rank)
        stride, dilation = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 1, 2]))
        reach = dilation * (k - 1)
        padding = draw(st.integers(0, reach // 2) if transposed else st.integers((reach + 1) // 2, reach))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layouts = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(LAYOUTS))
    wanted = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return op, x, weight, layouts, options, wanted, draw(st.integers(0, 9)), draw(st.integers(0, 2**31))


def leaves_of(call, dtype):
    _, x, weight, _, _, wanted, _, number = call
    generator = torch.Generator().manual_seed(number)
    drawn = [torch.randn(torch.Size(shape).numel(), generator=generator, dtype=torch.float64) for shape in (x, weight)]
    return [one.to(dtype).requires_grad_(want) for one, want in zip(drawn, wanted, strict=True)]


def run(call, leaves, forced):
    op, x, weight, layouts, options, _, choice, _ = call
    tensors = [laid(leaf, shape, one) for leaf, shape, one in zip(leaves, (x, weight), layouts, strict=True)]
    if not forced:
        return getattr(functional, op)(*tensors, **options)
    given = list(options.values())
    if AXES[op] < 0:  # stride, padding, output_padding, groups, dilation
        given = [options["stride"], options["padding"], 0, options["groups"], options["dilation"]]
    geometry = measure(AXES[op], x, weight, None, *given)
    geometry = geometry.as_image() if AXES[op] == 1 else geometry
    names = possible(Problem(geometry, setting_of(*tensors)))
    return calling.run(calling.make_plan(AXES[op], geometry, names[choice % len(names)]), *tensors, None)


def gradients(call, dtype, forced):
    """First and second gradients with respect to the leaves that want them."""
    leaves = leaves_of(call, dtype)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    y = run(call, leaves, forced)
    first = torch.autograd.grad((y * y * y).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum((one * one).sum() for one in first), wanted)
    return [y, *first, *second]


def check(call):
    exact = gradients(call, torch.float64, forced=False)
    for found, expected in zip(gradients(call, torch.float32, forced=True), exact, strict=True):
        assert (found.double() - expected).norm() <= 1e-4 * expected.norm() + 1e-6, call


QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@seed(16)
@settings(max_examples=150, **QUIET)
@given(calls())
def test_first_and_second_gradients_are_those_of_float64(call):
    check(call)


@pytest.mark.slow
@seed(1616)
@settings(max_examples=6000, **QUIET)
@given(calls())
def test_first_and_second_gradients_are_those_of_float64_in_many_cases(call):
    check(call)


@pytest.mark.parametrize("weight", [(2, 4, 4, 3, 3), (4, 4, 3, 3), (2, 4, 1, 3, 3)])
def test_torchs_transforms_differentiate_too(weight):
    """A batch of gradients, which a kernel cannot read, used to end in torch's words on storage."""
    groups = 4 if weight[-3] == 1 else 1
    x, w = torch.randn(2, 4, 6, 6), torch.randn(weight)

    def loss(x, w):
        return functional.conv2d(x, w, padding=1, groups=groups).pow(3).sum()

    dx, dw = torch.func.grad(loss, (0, 1))(x, w)
    a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
    for found, expected in zip((dx, dw), torch.autograd.grad(loss(a, b), (a, b), create_graph=True), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    tangent = torch.randn_like(x)
    _, forward = torch.func.jvp(lambda x: loss(x, w), (x,), (tangent,))
    torch.testing.assert_close(forward, (dx * tangent).sum(), rtol=1e-3, atol=1e-2)
    y = functional.conv2d(a, b, padding=1, groups=groups)
    pulls = torch.randn(3, *y.shape)
    batched = torch.autograd.grad(y, (a, b), pulls, is_grads_batched=True, retain_graph=True)
    for number, pull in enumerate(pulls):
        alone = torch.autograd.grad(y, (a, b), pull, retain_graph=True)
        for found, expected in zip(batched, alone, strict=True):
            torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-4)


def test_a_hessian_is_that_of_float64():
    w = torch.randn(1, 2, 2, 3, 3)

    def hessian(dtype):
        kernel = w.to(dtype)
        return torch.autograd.functional.hessian(
            lambda x: functional.conv2d(x, kernel, padding=1).pow(3).sum(), x.to(dtype), vectorize=True
        )

    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(hessian(torch.float32).double(), hessian(torch.float64), rtol=1e-4, atol=1e-3)


def test_who_counts_what_is_dispatched_may_differentiate_twice():
    """It used to end in torch's words: no autograd formula was registered."""
    from torch.utils.flop_counter import FlopCounterMode

    x, w = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(2, 4, 4, 3, 3, requires_grad=True)

    def second():
        (slope,) = torch.autograd.grad(functional.conv2d(x, w, padding=1).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), w)[0]

    with FlopCounterMode(display=False) as counter:
        counted = second()
    torch.testing.assert_close(counted, second(), rtol=1e-4, atol=1e-3)
    assert counter.get_total_flops() > 0


def test_factors_have_second_gradients():
    A, B = torch.randn(2, 32, 2), torch.randn(2, 2, 32, 3, 3)
    x = torch.randn(2, 32, 8, 8)

    def second(dtype):
        a, b, z = (one.to(dtype).requires_grad_() for one in (A, B, x))
        (slope,) = torch.autograd.grad(
            functional.conv2d(z, LowRank(a, b), padding=1).pow(2).sum(), z, create_graph=True
        )
        return torch.autograd.grad(slope.pow(2).sum(), (a, b))

    for found, expected in zip(second(torch.float32), second(torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-2 * float(expected.abs().max()))
