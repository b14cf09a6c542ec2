"""What differentiates gradients trains by the right ones: a gradient penalty, an unrolled DARTS step, a MAML step."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import DartsSampler, DynamicConv2d, DynamicLinear, DynamicWeightMutator, RandomSampler, VectorContext


class Critic(ModelSpace):
    def __init__(self):
        super().__init__()
        self.body = LayerChoice(
            {
                "3x3": DynamicConv2d(1, 8, 3, padding=1),
                "depthwise": nn.Sequential(nn.Conv2d(1, 8, 1), DynamicConv2d(8, 8, 3, padding=1, groups=8)),
            },
            label="body",
        )
        self.head = DynamicLinear(8, 1)

    def forward(self, x):
        return self.head(F.softplus(self.body(x)).mean((2, 3)))


def make(sampler, **settings):
    torch.manual_seed(0)
    return DynamicWeightMutator(Critic(), sampler=sampler, context=VectorContext(3, dim=8), **settings)


def data(dtype):
    generator = torch.Generator().manual_seed(1)
    x, c, y = (torch.randn(4, *shape, generator=generator) for shape in ((1, 8, 8), (3,), (1,)))
    return x.to(dtype), c.to(dtype), y.to(dtype)


def assert_same(gradient):
    """Compare the gradients in float32 with those of float64."""
    exact, found = gradient(torch.float64), gradient(torch.float32)
    assert exact.norm() > 0
    assert (found.double() - exact).norm() < 1e-3 * exact.norm()


def flat(gradients):
    return torch.cat([one.flatten() for one in gradients if one is not None])


SETTINGS = [{}, {"base": "learned", "delta": "low_rank", "rank": 2}, {"base": "learned", "delta": "scale"}]


@pytest.mark.parametrize("candidate", ["3x3", "depthwise"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_gradient_penalty_trains_the_controller_by_the_right_gradient(settings, candidate):
    """It used to be wrong by half: generated weights are views of what the controller makes."""
    critic = make(RandomSampler(seed=0), **settings)

    def gradient(dtype):
        critic.to(dtype)
        x, c, _ = data(dtype)
        x.requires_grad_()
        with critic.using({"body": candidate}):
            (slope,) = torch.autograd.grad(critic(x, context=c).sum(), x, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        return flat(torch.autograd.grad(penalty, critic.parameters_by_role()["controller"], allow_unused=True))

    assert_same(gradient)


def test_an_unrolled_step_of_darts_reaches_the_architecture():
    """Second order: the loss after a step of the weights, with respect to the architecture through that step."""
    mutator = make(DartsSampler(seed=0))
    mutator.reset()

    def gradient(dtype):
        mutator.to(dtype)
        x, c, y = data(dtype)
        alphas = list(mutator.sampler.parameters())
        for alpha in alphas:
            alpha.data.copy_(torch.linspace(-1, 1, alpha.numel()))
        space, weights = mutator.space, dict(mutator.space.named_parameters())

        def loss(values):
            return F.mse_loss(functional_call(space, values, ((x, c),)), y)

        slopes = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=True, allow_unused=True)
        stepped = {
            name: one if slope is None else one - 0.1 * slope
            for (name, one), slope in zip(weights.items(), slopes, strict=True)
        }
        return flat(torch.autograd.grad(loss(stepped), alphas, allow_unused=True))

    assert_same(gradient)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_step_of_maml_over_a_frozen_network_is_right(settings):
    mutator = make(RandomSampler(seed=0), **settings)
    frozen = mutator.freeze({"body": "3x3"})

    def gradient(dtype):
        network = copy.deepcopy(frozen).to(dtype)
        x, c, y = data(dtype)
        weights = dict(network.named_parameters())

        def loss(values, x, c, y):
            return F.mse_loss(functional_call(network, values, (x, c)), y)

        support, query = (x[:2], c[:2], y[:2]), (x[2:], c[2:], y[2:])
        slopes = torch.autograd.grad(
            loss(weights, *support), list(weights.values()), create_graph=True, allow_unused=True
        )
        adapted = {
            name: one if slope is None else one - 0.1 * slope
            for (name, one), slope in zip(weights.items(), slopes, strict=True)
        }
        return flat(torch.autograd.grad(loss(adapted, *query), list(weights.values()), allow_unused=True))

    assert_same(gradient)
