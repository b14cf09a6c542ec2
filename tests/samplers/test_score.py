"""The score function's estimate is unbiased, whatever the losses, and needs nothing but them."""

from __future__ import annotations

import itertools
import math

import nni
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.mutable import ExpressionConstraint, MutableList

from nni_dynconv.errors import ConfigError, LearningError, SampleError
from nni_dynconv.samplers import Choice, DartsSampler, GdasSampler, choices_of

CHOICES = {"op": Choice("op", ("a", "b", "c")), "depth": Choice("depth", (1, 2))}
NUMBERS = st.floats(-3, 3)
LOGITS = st.tuples(st.tuples(NUMBERS, NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
LOSSES = st.lists(NUMBERS, min_size=6, max_size=6)


def bound(choices, logits):
    sampler = GdasSampler(seed=0)
    sampler.bind(choices)
    sampler.double()
    with torch.no_grad():
        for alpha, values in zip(sampler.alphas, logits, strict=True):
            alpha.copy_(torch.tensor(values))
    return sampler


def all_of(choices):
    for values in itertools.product(*(choice.candidates for choice in choices.values())):
        yield dict(zip(choices, values, strict=True))


def gradients(sampler):
    return torch.cat([one.grad for one in sampler.alphas])


def expected_estimate(sampler, samples, losses, count):
    """Return the mean of the estimate over all draws of so many of some samples, each draw by its probability."""
    chances = torch.stack([sampler.log_prob(one).detach() for one in samples]).softmax(0).tolist()
    total = 0.0
    for drawn in itertools.product(range(len(samples)), repeat=count):
        estimate = sampler.score([samples[one] for one in drawn], [losses[one] for one in drawn])
        total = total + math.prod(chances[one] for one in drawn) * estimate
    sampler.zero_grad()
    total.backward()
    return gradients(sampler)


def true_gradient(sampler, samples, losses):
    sampler.zero_grad()
    logs = torch.stack([sampler.log_prob(one) for one in samples])
    (logs.softmax(0) @ torch.tensor(losses, dtype=torch.double)).backward()
    return gradients(sampler)


@settings(max_examples=4, deadline=None)
@given(LOGITS, LOSSES)
@pytest.mark.parametrize("count", [2, 3])
def test_its_mean_is_the_gradient_of_the_expected_loss(count, logits, losses):
    sampler, samples = bound(CHOICES, logits), list(all_of(CHOICES))
    found = expected_estimate(sampler, samples, losses, count)
    torch.testing.assert_close(found, true_gradient(sampler, samples, losses), rtol=1e-9, atol=1e-9)


@settings(max_examples=4, deadline=None)
@given(LOGITS, LOSSES)
def test_so_it_is_among_the_architectures_that_keep_a_constraint(logits, losses):
    width, depth = nni.choice("width", [8, 16, 32]), nni.choice("depth", [1, 2])
    choices = choices_of(MutableList([width, depth, ExpressionConstraint(width * depth < 40, label="size")]))
    sampler, samples = bound(choices, logits), [one for one in all_of(choices) if choices.broken(one) is None]
    assert 1 < len(samples) < 6
    found = expected_estimate(sampler, samples, losses, 2)
    torch.testing.assert_close(found, true_gradient(sampler, samples, losses[: len(samples)]), rtol=1e-9, atol=1e-9)


def test_its_value_is_the_mean_loss_and_a_loss_in_common_changes_nothing():
    sampler, samples = bound(CHOICES, ((0.0, 1.0, 2.0), (0.0, 0.5))), [{"op": "a", "depth": 1}, {"op": "b", "depth": 2}]
    found = []
    for common in (0.0, 1e6):
        sampler.zero_grad()
        loss = sampler.score(samples, [1.0 + common, 2.0 + common])
        assert loss.item() == pytest.approx(1.5 + common)
        loss.backward()
        found.append(gradients(sampler))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 2.0]])
def test_fewer_than_two_or_not_as_many_losses_as_samples_are_refused(losses):
    sampler = bound(CHOICES, ((0.0, 0.0, 0.0), (0.0, 0.0)))
    with pytest.raises(LearningError, match=f"was given 1 samples and {len(losses)} losses, but compares two"):
        sampler.score([{"op": "a", "depth": 1}], losses)


def test_a_sample_that_is_none_is_refused():
    with pytest.raises(SampleError, match="Label `op` has no candidate 'd'"):
        bound(CHOICES, ((0.0, 0.0, 0.0), (0.0, 0.0))).score([{"op": "d", "depth": 1}] * 2, [1.0, 2.0])


def test_how_many_paths_are_compared_is_a_setting():
    assert GdasSampler().paths == 2 and GdasSampler(paths=3).paths == 3 and DartsSampler().paths == 1
    with pytest.raises(ConfigError, match="`paths` in `GdasSampler` is 0, but must be 1 or more"):
        GdasSampler(paths=0)
