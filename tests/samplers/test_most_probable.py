"""The most probable architectures under constraints, against all of them and against a solver; draws that are rare."""

from __future__ import annotations

import copy
import itertools
import math
import operator
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from often import by_default
from scipy.optimize import Bounds, LinearConstraint, milp

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import Constraint, ExpressionConstraint, MutableExpression, MutableList
from nni.mutable.exception import ConstraintViolation

from nni_dynconv import EnasSampler, FairSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import SampleError
from nni_dynconv.samplers import Sampler, choices_of

COMPARED = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}


class Multiple(Constraint):
    """A constraint of a user, of all labels at once: the sum of squares is a multiple."""

    def __init__(self, labels, of, name_them=True):
        self.label, self.labels, self.of, self.name_them = "multiple", labels, of, name_them

    def leaf_mutables(self, is_leaf):
        yield from self.labels if self.name_them else ()
        yield self

    def check_contains(self, sample):
        if sum(sample[one.label] ** 2 for one in self.labels) % self.of:
            return ConstraintViolation("no multiple")
        return None


def limited_to(expression, label="limit"):
    return ExpressionConstraint(expression, label=label)


def bound(sampler, values, constraints):
    labels = [nni.choice(f"label{row}", list(one)) for row, one in enumerate(values)]
    sampler.bind(choices_of(MutableList([*labels, *constraints(labels)])))
    return sampler


def opinionated(values, constraints, seed):
    """Return a sampler whose logits are random."""
    sampler = bound(GdasSampler(seed=0), values, constraints)
    generator = torch.Generator().manual_seed(seed)
    for alpha in sampler.alphas:
        alpha.data = 3 * torch.randn(len(alpha), generator=generator)
    return sampler


def best_of_all(sampler, count):
    """Return the log-probabilities of the most probable that keep the constraints, of all that there are."""
    every = itertools.product(*(choice.candidates for choice in sampler.choices.values()))
    kept = (dict(zip(sampler.choices, values, strict=True)) for values in every)
    kept = [one for one in kept if sampler.choices.broken(one) is None]
    with torch.no_grad():
        return sorted((float(sampler.log_prob(one)) for one in kept), reverse=True)[:count]


def check_against_all(sampler, count=4):
    found, expected = sampler.most_probable(count), best_of_all(sampler, count)
    assert found.log_probs == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert all(sampler.choices.broken(one) is None for one in found.samples)
    assert len({tuple(one.values()) for one in found.samples}) == len(found.samples)
    return found


# Against all


@st.composite
def spaces(draw):
    """Candidates of some labels, and constraints on them of every kind that is read in a way of its own."""
    number = st.sampled_from([draw(st.sampled_from([st.integers(-3, 5), st.floats(0.1, 3.0)])), st.integers(1, 9)])
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    values = [draw(st.lists(draw(number), min_size=size, max_size=size, unique=True)) for size in sizes]
    compare = COMPARED[draw(st.sampled_from(sorted(COMPARED)))]
    kind, share = draw(st.sampled_from(sorted(CONSTRAINTS))), draw(st.floats(0.0, 1.0))

    def constraints(labels):
        return CONSTRAINTS[kind](labels, lambda expression: compare(expression, bound_of(expression, labels, share)))

    return values, constraints


def bound_of(expression, labels, share):
    """Return a value that the expression has somewhere in the space."""
    combinations = list(itertools.product(*(one.values for one in labels)))
    values = combinations[int(share * (len(combinations) - 1))]
    return expression.evaluate({one.label: value for one, value in zip(labels, values, strict=True)})


CONSTRAINTS = {
    "sum": lambda labels, limited: [limited_to(limited(sum(labels[1:], labels[0])))],
    "weighted": lambda labels, limited: [limited_to(limited(2 * labels[0] - 3 * (labels[-1] + 1)))],
    "chain": lambda labels, limited: [
        limited_to(limited(sum(a * b for a, b in itertools.pairwise(labels)) - labels[0]))
    ],
    "product": lambda labels, limited: [limited_to(limited(math.prod(labels[1:], start=labels[0])))],
    "largest": lambda labels, limited: [limited_to(limited(MutableExpression.max(*labels)))],
    "both": lambda labels, limited: [limited_to(limited(labels[0] + labels[1]) & limited(labels[-1] * labels[-1]))],
    "two": lambda labels, limited: [
        limited_to(limited(sum(labels[1:], labels[0]))),
        limited_to(labels[0] != labels[0] + labels[1] * labels[-1], "second"),
    ],
}


@settings(max_examples=80, deadline=None)
@given(spaces(), st.integers(0, 10_000))
def test_they_are_the_best_of_all(space, seed):
    assert check_against_all(opinionated(*space, seed)).proven


@settings(max_examples=8, deadline=None)
@given(spaces(), st.integers(0, 10_000))
def test_they_are_the_best_of_all_where_labels_depend_on_one_another(space, seed):
    sampler = bound(EnasSampler(seed=seed, hidden=8), *space)
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.mul_(20)
    assert check_against_all(sampler).proven


@pytest.mark.parametrize("name_them", [True, False])
@pytest.mark.parametrize("count", [3, 8])
def test_a_constraint_of_ones_own_is_asked_however_many_labels_it_has(count, name_them):
    """Of three labels it becomes a table, of eight it is asked where the last of them is chosen."""
    space = [range(3)] * count, lambda labels: [Multiple(labels, 7, name_them)]
    assert check_against_all(opinionated(*space, seed=1)).proven


# Against a solver


def solved(sampler, values, limit):
    """Return the best log-probability under a sum of at most so much, by integer programming."""
    sizes = [len(one) for one in values]
    places = np.repeat(np.arange(len(sizes)), sizes)
    each = LinearConstraint(np.arange(len(sizes))[:, None] == places, 1, 1)
    within = LinearConstraint(np.concatenate(values)[None].astype(float), -np.inf, limit)
    cost = -torch.cat([alpha.detach().double().log_softmax(-1) for alpha in sampler.alphas]).numpy()
    how = {"integrality": np.ones(len(cost)), "bounds": Bounds(0, 1), "options": {"mip_rel_gap": 0}}
    return -milp(cost, constraints=[each, within], **how).fun


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("labels", [6, 10, 16])
def test_the_optimum_under_a_limit_is_that_of_a_solver(labels, whole):
    """Of 16 labels it used to be found in none of ten cases."""
    for seed in range(10):
        generator = np.random.default_rng(seed)
        values = [generator.choice(1000, 4, replace=False) / (1 if whole else 999) for _ in range(labels)]
        values = [one.astype(int).tolist() if whole else one.tolist() for one in values]
        limit = 0.7 * sum(map(min, values)) + 0.3 * sum(map(max, values))
        sampler = opinionated(values, lambda all_of: [limited_to(sum(all_of[1:], all_of[0]) <= limit)], seed)  # noqa: B023
        found = sampler.most_probable(5)
        assert found.proven and found.log_probs[0] == pytest.approx(solved(sampler, values, limit), abs=1e-5)
        assert found.log_probs == sorted(found.log_probs, reverse=True) and len(found.samples) == 5


# What cannot be proven


class Turning(Sampler):
    """Each label's logits depend on the choices before, and there is no faster way than to walk."""

    def prepare(self):
        self.turn = torch.tensor([0.3, 0.0, -0.2])

    def walk(self):
        logits = self.turn
        for _ in self.choices:
            logits = self.turn.roll((yield logits))


def test_a_space_that_is_too_large_to_tell_is_said_to_be_so():
    small, large = (bound(Turning(seed=0), [range(3)] * count, lambda labels: []) for count in (7, 12))
    assert check_against_all(small).proven
    assert not large.most_probable(3).proven
    with pytest.warns(UserWarning, match="not proven to be the most probable there is: the space is too large to tell"):
        assert set(large.best()) == set(large.choices)


def test_a_large_space_is_proven_where_the_distribution_is_decided():
    sampler = bound(Turning(seed=0), [range(3)] * 12, lambda labels: [])
    sampler.turn = torch.tensor([9.0, 0.0, 0.0])
    found = sampler.most_probable(2)
    assert found.proven and list(found.samples[0].values()) == [0] * 12


# Few of many are allowed


def few(labels):
    """Twenty of 6 to the power of 6."""
    key = sum(one * 6**row for row, one in enumerate(labels))
    return [limited_to(key % 2333 == 17)]


@pytest.mark.whole
@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=[RandomSampler, FairSampler, GdasSampler, EnasSampler]))
def test_where_few_of_many_are_allowed_they_are_drawn_and_found(sampler):
    """Draws, and the search for the best, used to give up after a thousand."""
    made = bound(sampler(seed=0), [range(6)] * 6, few)
    allowed = {tuple(one.values()) for one in made.most_probable(50).samples}
    drawn = Counter(tuple(made.sample().values()) for _ in range(150))
    assert len(allowed) == 20 and set(drawn) <= allowed and len(drawn) > 15
    assert tuple(made.best().values()) in allowed


@pytest.mark.whole
def test_rare_draws_are_distributed_as_draws_until_one_is_allowed():
    sampler = opinionated([range(3)] * 4, lambda labels: [limited_to(sum(labels[1:], labels[0]) <= 2)], 3)
    for alpha in sampler.alphas:
        alpha.data /= 3
    usual = Counter(tuple(sampler.sample().values()) for _ in range(1000))
    sampler._rarely = True
    rare = Counter(tuple(sampler.sample().values()) for _ in range(1000))
    for one in usual | rare:
        assert abs(usual[one] - rare[one]) <= 5 * (usual[one] + rare[one]) ** 0.5 + 5


def test_rare_draws_of_gdas_have_the_noise_that_chose_them():
    sampler = bound(GdasSampler(seed=0), [range(6)] * 6, few)
    for _ in range(3):
        for label, value in sampler.sample().items():
            torch.testing.assert_close(sampler.relaxed(label)[value].detach(), torch.tensor(1.0))


def test_a_label_that_is_decided_for_what_is_not_allowed_is_named(monkeypatch):
    monkeypatch.setattr("nni_dynconv.samplers.preferring.TRIES", 50)  # so that it does not take seconds
    sampler = bound(GdasSampler(seed=0), [range(2)] * 2, lambda labels: [limited_to(labels[0] == 1)])
    sampler.alphas[0].data = torch.tensor([60.0, 0.0])
    with pytest.raises(SampleError, match="Label `label0` is decided for candidates that break a constraint"):
        sampler.sample()
    assert sampler.best()["label0"] == 1


def test_draws_that_no_table_holds_are_refused():
    space = [range(2)] * 24, lambda labels: [Multiple(labels, 1009)]
    with pytest.raises(SampleError, match="and the space is too large to tell what keeps it. Loosen"):
        bound(RandomSampler(seed=0), [range(1, 3)] * 24, lambda labels: space[1](labels)).sample()


def test_a_space_with_constraints_is_copied_and_pickled_after_it_was_asked(tmp_path):
    sampler = bound(GdasSampler(seed=0), [range(3)] * 3, lambda labels: [limited_to(labels[0] < labels[2])])
    best = sampler.best()
    torch.save(sampler.choices, tmp_path / "choices.pt")
    loaded = torch.load(tmp_path / "choices.pt", weights_only=False)
    for choices in (copy.deepcopy(sampler).choices, loaded):
        assert choices.broken(best) is None and len(choices.constraints) == 1
        assert choices.growth.sizes == [3, 3, 3]
