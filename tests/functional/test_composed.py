"""Weights as a scaled base and as mixtures: applied or formed, they give what the formed weight does."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from functional.loops import assert_like_loop, problems, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv import functional
from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import LowRank, Mixed, Scaled, calling, conv2d, deterministic, linear, portable
from nni_dynconv.functional.paths import forming
from nni_dynconv.functional.planning import composed as planned
from nni_dynconv.functional.planning.problem import Choice

KINDS = [(1, False), (2, False), (2, False), (3, False), (1, True), (2, True), (3, True)]
DENSE = [(1, False), (2, False), (3, False)]


@contextmanager
def taking(path):
    """Let composed weights be applied, or formed, whatever the rules say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nni_dynconv.functional.planning.composed.choose", lambda *_: Choice(path, "the test says so"))
        calling._plan_once.cache_clear()
        yield
    calling._plan_once.cache_clear()


@st.composite
def cases(draw, kinds, grouped=True):
    """A convolution with a shared weight of ``kinds``, or a linear map, and sets for all, samples or blocks of them."""
    op, (x, weight, _), options = draw(problems(kinds))
    weight = weight if weight.dim() == x.dim() else weight[0]
    if not grouped and options["groups"] > 1:
        options["groups"], weight = 1, weight.repeat_interleave(options["groups"], 1)
    if draw(st.integers(0, 4)) == 0:
        op, options = "linear", {}
        x, weight = tensors((draw(st.integers(1, 3)), *[2] * draw(st.integers(0, 2)), 3), (4, 3))
    B = len(x)
    counts = draw(st.sampled_from([None, None, (1, B - 1)]))
    lead = draw(st.sampled_from([(), (B,)])) if counts is None else (2,)
    outputs = weight.shape[1] * options["groups"] if "transpose" in op else weight.shape[0]
    added = draw(st.sampled_from([None, (outputs,), (*lead, outputs)]))
    return op, x.detach().double(), weight.detach().double(), lead, added, {**options, "counts": counts}


def check(op, make, inputs, added, options):
    """Applied, formed, and as the planner has it, equal the whole weight: values, first and second gradients."""
    function = getattr(functional, op)
    leaves = [one.detach().requires_grad_() for one in (*inputs, *([] if added is None else tensors(added)))]
    count = len(inputs)

    def run(form):
        def call(*given):
            weight = make(*given[1:count])
            bias = given[count] if added is not None else None
            return function(given[0], weight.whole() if form else weight, bias, **options)

        return call

    for path in ("applied", "formed", None):
        with taking(path) if path else pytest.MonkeyPatch.context():
            assert_like_loop(run(False), run(True), leaves)
            found, expected = (second_gradients(run(form), leaves) for form in (False, True))
        for mine, right in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, right, atol=1e-8, rtol=1e-8)


def second_gradients(call, leaves):
    first = torch.autograd.grad(call(*leaves).square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(sum(one.square().sum() for one in first), leaves)


@given(cases(KINDS))
@settings(max_examples=60, deadline=None)
def test_a_scaled_base_equals_the_formed_weight(case):
    op, x, weight, lead, added, options = case
    transposed = options["groups"] if "transpose" in op else 0
    outputs = weight.shape[1] * transposed if transposed else weight.shape[0]
    scale = torch.randn(*lead, outputs, dtype=torch.float64)
    check(op, lambda base, own: Scaled(base, own, transposed), (x, weight, scale), added, options)


@given(cases(DENSE, grouped=False), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_mixture_equals_the_formed_weight(case, count, based):
    op, x, weight, lead, added, options = case
    shares, bank = torch.randn(*lead, count).double(), torch.randn(count, *weight.shape).double()
    inputs = (x, shares, bank, *([weight] if based else []))
    check(op, lambda *parts: Mixed(*parts), inputs, added, options)


@given(cases(DENSE, grouped=False), st.sampled_from(["scale", "mixture", "product"]), st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_weights_formed_some_samples_at_a_time_equal_those_formed_at_once(case, kind, least):
    op, x, weight, lead, added, options = case
    parts = {
        "scale": (Scaled, weight, torch.randn(*lead, len(weight)).double()),
        "mixture": (Mixed, torch.randn(*lead, 2).double(), torch.randn(2, *weight.shape).double(), weight),
        "product": (
            LowRank,
            *(torch.randn(*lead, *one).double() for one in ((len(weight), 2), (2, *weight.shape[1:]))),
        ),
    }
    make, *inputs = parts[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "PIECES", dict.fromkeys(planned.PIECES, 1))
        patch.setattr(planned, "LEAST", least)
        check(op, make, (x, *inputs), added, options)


@pytest.mark.parametrize(("samples", "expected"), [(12, [4, 4, 4]), (10, [4, 4, 2]), (3, [3])])
def test_large_weights_are_formed_some_samples_at_a_time(samples, expected, monkeypatch):
    """All were at once, in tensors of so many sets, with their gradients."""
    x, shares, bank = tensors((samples, 4, 3, 3), (samples, 2), (2, 4, 4, 3, 3))
    monkeypatch.setitem(planned.PIECES, "Mixed", 4 * bank[0].nbytes)
    formed, plain = [], Mixed.whole
    monkeypatch.setattr(Mixed, "whole", lambda self: formed.append(len(self.shares)) or plain(self))
    with taking("formed"):
        conv2d(x, Mixed(shares, bank), padding=1)
    assert formed == expected


@pytest.mark.parametrize(("groups", "op"), [(2, "conv2d"), (2, "conv_transpose2d"), (1, "conv_transpose2d")])
def test_a_mixture_that_cannot_be_applied_is_formed(groups, op):
    x, shares, bank = tensors((3, 4, 1, 1), (3, 2), (2, 4, 2, 1, 1))
    function = getattr(functional, op)
    y = function(x, Mixed(shares, bank), groups=groups)
    torch.testing.assert_close(y, function(x, Mixed(shares, bank).whole(), groups=groups))


@pytest.mark.parametrize("mode", [deterministic, portable])
def test_modes_change_no_value(mode):
    x, base, scale, shares, bank = tensors((4, 3, 6, 6), (5, 3, 3, 3), (4, 5), (4, 2), (2, 5, 3, 3, 3))
    for weight in (Scaled(base, scale), Mixed(shares, bank, base)):
        with mode():
            found = conv2d(x, weight, padding=1)
        torch.testing.assert_close(found, conv2d(x, weight.whole(), padding=1))


def test_a_scaled_base_forms_no_weight():
    """Of 4 samples with 32 x 32 channels: 36,864 values."""
    x, base, scale = tensors((4, 32, 8, 8), (32, 32, 3, 3), (4, 32), dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        conv2d(x, Scaled(base, scale), padding=1)
    assert max(one.numel() for one in kept) == 32 * 32 * 9


PARTS = {  # what makes a weight of more than a megabyte, and its leaves
    "scale": lambda: (Scaled, tensors((64, 32, 3, 3), (32, 64), dtype=torch.float32)),
    "mixture": lambda: (Mixed, tensors((32, 3), (3, 64, 32, 3, 3), dtype=torch.float32)),
    "product": lambda: (LowRank, tensors((32, 64, 4), (32, 4, 32, 3, 3), dtype=torch.float32)),
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_large_formed_weight_is_not_kept_but_formed_again(make, monkeypatch):
    kind, parts = make()
    (x,) = tensors((32, 32, 8, 8), dtype=torch.float32)

    def gradients(second):
        loss = conv2d(x, kind(*parts), padding=1).square().mean()
        first = torch.autograd.grad(loss, [x, *parts], create_graph=second)
        return torch.autograd.grad(sum(one.square().sum() for one in first), [x, *parts]) if second else first

    formed = []
    plain = kind.whole
    monkeypatch.setattr(kind, "whole", lambda self: formed.append(self) or plain(self))
    with taking("formed"):
        again = gradients(False), gradients(True)
        times = len(formed)
        monkeypatch.setattr(forming, "LARGE", 1 << 40)
        kept = gradients(False), gradients(True)
    assert times > 2 == len(formed) - times
    for mine, right in zip(sum(again, ()), sum(kept, ()), strict=True):
        torch.testing.assert_close(mine, right, atol=1e-5, rtol=1e-4)


def test_a_part_that_was_changed_before_the_backward_is_refused():
    kind, parts = PARTS["mixture"]()
    shares, bank = parts[0].detach(), parts[1]
    (x,) = tensors((32, 32, 8, 8), dtype=torch.float32)
    with taking("formed"):
        loss = conv2d(x, kind(shares, bank), padding=1).sum()
    with torch.no_grad():
        bank.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation between forward and backward"):
        loss.backward()


WRONG = {
    "scale of other channels": (lambda: Scaled(torch.ones(4, 3, 1, 1), torch.ones(2, 5)), "has 4 output channels"),
    "scale of many axes": (lambda: Scaled(torch.ones(4, 3, 1, 1), torch.ones(2, 4, 1)), r"\[D\] Cout"),
    "other shares": (lambda: Mixed(torch.ones(2, 3), torch.ones(4, 4, 3, 1, 1)), "for 3 weights, but `bank`"),
    "a bank of no weights": (lambda: Mixed(torch.ones(2, 3), torch.ones(3, 4)), "`bank` is"),
    "another base": (lambda: Mixed(torch.ones(2, 3), torch.ones(3, 4, 3, 1, 1), torch.ones(4, 2, 1, 1)), "`base` is"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ShapeError, match=words):
        conv2d(torch.ones(2, 3, 4, 4), make())


def test_a_linear_map_of_tokens_takes_both():
    x, base, scale, shares, bank = tensors((2, 5, 3), (4, 3), (2, 4), (2, 6), (6, 4, 3))
    for weight in (Scaled(base, scale), Mixed(shares, bank)):
        torch.testing.assert_close(linear(x, weight), linear(x, weight.whole()))
