"""DARTS of second order: the gradient of a held-out loss after a step of the weights, by finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from planted import Branches, batch_of
from torch.func import functional_call

from nni_dynconv import DartsSampler, DynamicWeightMutator, GdasSampler
from nni_dynconv.errors import LearningError

STEP = 0.5


def made(sampler=None, norm="batch"):
    torch.manual_seed(0)
    sampler = DartsSampler(0, mixture="softmax", unroll=STEP) if sampler is None else sampler
    mutator = DynamicWeightMutator(Branches(norm), sampler=sampler, base="learned").double()
    for alpha in mutator.sampler.alphas:
        alpha.data.copy_(torch.linspace(-1, 1, alpha.numel()))
    return mutator


def batches(mutator):
    generator = torch.Generator().manual_seed(0)
    return [[one.double() for one in batch_of(mutator.space, generator)] for _ in range(2)]


def losses(mutator):
    return [lambda x=x, y=y: F.mse_loss(mutator(x), y) for x, y in batches(mutator)]


def gradient(mutator):
    return torch.cat([one.grad for one in mutator.sampler.alphas])


def exact(mutator, step):
    """Differentiate through the step."""
    space, alphas = mutator.space, list(mutator.sampler.alphas)
    held_out, training = batches(mutator)
    weights = dict(space.named_parameters())

    def loss(values, batch):
        return F.mse_loss(functional_call(space, values, (batch[0],)), batch[1])

    slopes = torch.autograd.grad(
        loss(weights, training), list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    stepped = {name: one - step * slope for (name, one), slope in zip(weights.items(), slopes, strict=True)}
    return torch.cat(torch.autograd.grad(loss(stepped, held_out), alphas))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_gradient_is_that_through_a_step_of_the_weights(norm):
    mutator = made(norm=norm)
    mutator.reset()
    wanted, first_order = exact(mutator, STEP), exact(mutator, 0.0)
    before = {name: one.clone() for name, one in mutator.space.named_parameters()}
    mutator.zero_grad()
    loss = mutator.architecture_loss(*losses(mutator))
    loss.backward()
    assert all(one.grad is None and torch.equal(one, before[name]) for name, one in mutator.space.named_parameters())
    apart = (gradient(mutator) - wanted).norm()
    assert apart < 0.01 * wanted.norm() and apart < 0.1 * (wanted - first_order).norm()


def test_its_value_is_the_held_out_loss_after_the_step():
    mutator = made(norm="none")
    held_out, training = losses(mutator)
    loss = mutator.architecture_loss(held_out, training).item()
    mutator.zero_grad()
    training().backward()
    with torch.no_grad():
        for one in mutator.space.parameters():
            if one.grad is not None:
                one -= STEP * one.grad
    assert loss == pytest.approx(held_out().item())


def test_a_training_loss_is_asked_for():
    mutator = made()
    with pytest.raises(LearningError, match="`unroll` of DartsSampler is 0.5.*given no training loss.*training="):
        mutator.architecture_loss(losses(mutator)[0])


@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_that_is_left_out_leaves_out_the_whole(which):
    mutator = made()
    runs = losses(mutator)
    runs[which] = lambda: None
    before = {name: one.clone() for name, one in mutator.space.named_parameters()}
    assert mutator.architecture_loss(*runs) is None
    assert all(torch.equal(one, before[name]) for name, one in mutator.space.named_parameters())


def test_what_a_sampler_pays_besides_is_added():
    sampler = DartsSampler(0, mixture="softmax", beta_decay=2.0)
    mutator = made(sampler)
    held_out, _ = losses(mutator)
    bare = mutator.architecture_loss(held_out).item()
    sampler.anneal(1.0)
    assert mutator.architecture_loss(held_out).item() == pytest.approx(bare + sampler.penalty().item())
    assert sampler.penalty() > 0 and GdasSampler().penalty() is None
