"""The mixtures of DARTS: drawn from a Dirichlet distribution that learns, or the softmax of logits."""

from __future__ import annotations

import copy

import pytest
import torch

from nni_dynconv.errors import ConfigError
from nni_dynconv.samplers import Choice, DartsSampler
from nni_dynconv.samplers.darts import concentration

CHOICES = {"op": Choice("op", ("a", "b", "c")), "width": Choice("width", (8, 16))}
LOGITS = torch.tensor([0.5, -0.5, 1.0])


def bound(logits=LOGITS, **settings):
    sampler = DartsSampler(**{"seed": 0, **settings})
    sampler.bind(CHOICES)
    sampler.alphas[0].data = torch.as_tensor(logits).clone()
    return sampler


def drawn(sampler):
    sampler.sample()
    return sampler.relaxed("op")


def test_the_softmax_is_that_of_the_logits_in_each_step():
    sampler = bound(mixture="softmax")
    for _ in range(2):
        assert torch.equal(drawn(sampler), LOGITS.softmax(0))
    torch.testing.assert_close(sampler.probabilities("op"), LOGITS.softmax(0))


@pytest.mark.whole
def test_shares_have_the_moments_of_the_dirichlet_distribution():
    sampler = bound()
    found = torch.stack([drawn(sampler).detach() for _ in range(4000)])
    true = torch.distributions.Dirichlet(concentration(LOGITS))
    torch.testing.assert_close(found.mean(0), true.mean, atol=0.015, rtol=0)
    torch.testing.assert_close(found.var(0), true.variance, atol=0.005, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(4000))


def test_their_gradient_is_that_of_what_is_expected():
    sampler = bound()
    alpha = sampler.alphas[0]
    beta = concentration(alpha)
    total = beta.sum()
    (true,) = torch.autograd.grad(beta[0] * (beta[0] + 1) / (total * (total + 1)), alpha)  # of the first one's square
    sampler.watch.optimized = True  # as far as its warnings go
    found = [torch.autograd.grad(drawn(sampler)[0].square(), alpha)[0] for _ in range(4000)]
    torch.testing.assert_close(torch.stack(found).mean(0), true, atol=0.005, rtol=0)


@pytest.mark.parametrize("logits", [[-50.0] * 3, [-50.0, 0.0, 0.0], [1e8] * 3, [1e8, 0.0, -1e8]])
def test_shares_and_gradients_are_numbers_whatever_the_logits(logits):
    sampler = bound(logits)
    for _ in range(50):
        shares = drawn(sampler)
        (slope,) = torch.autograd.grad(shares @ torch.tensor([1.0, 2.0, 3.0]), sampler.alphas[0])
        assert shares.isfinite().all() and slope.isfinite().all()
        torch.testing.assert_close(shares.sum(), torch.ones(()))


def test_one_draw_holds_until_the_next_and_out_of_training_shares_are_their_mean():
    sampler = bound()
    mean = concentration(LOGITS) / concentration(LOGITS).sum()
    assert torch.equal(sampler.relaxed("op"), mean)  # nothing is drawn yet
    first = drawn(sampler)
    assert torch.equal(first, sampler.relaxed("op")) and torch.equal(first, copy.deepcopy(sampler).relaxed("op"))
    assert not torch.equal(first, drawn(sampler))
    assert torch.equal(sampler.eval().relaxed("op"), mean)
    torch.testing.assert_close(sampler.probabilities("op"), mean)


def test_draws_follow_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    assert torch.equal(drawn(bound()), drawn(bound())) and not torch.equal(drawn(bound()), drawn(bound(seed=1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_beta_decay_is_the_mean_over_labels_and_goes_up_in_a_line():
    sampler = bound(mixture="softmax", beta_decay=0.4)
    assert sampler.penalty() is None
    sampler.anneal(0.5)
    wanted = 0.2 * (LOGITS.logsumexp(0) + torch.zeros(2).logsumexp(0)) / 2
    torch.testing.assert_close(sampler.penalty(), wanted)
    sampler.penalty().backward()
    torch.testing.assert_close(sampler.alphas[0].grad, 0.1 * LOGITS.softmax(0))


def test_beta_decay_is_refused_where_it_would_lower_concentrations():
    with pytest.raises(ConfigError, match="`beta_decay` of DartsSampler is 0.1, but `mixture` is 'dirichlet'.*softmax"):
        DartsSampler(beta_decay=0.1)
