"""The penalty on weights that change from one moment to the next."""

from __future__ import annotations

import pytest
import torch
from spaces import OneChoice

from nni_dynconv import DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext
from nni_dynconv.errors import ContextError
from nni_dynconv.smoothness import smoothness


@pytest.fixture
def mutator():
    torch.manual_seed(0)
    made = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=VectorContext(3, dim=8))
    made.sample = {"op": "3x3"}
    return made


def moments(count, step=1.0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * step


def test_it_is_what_the_formula_says(mutator):
    c = moments(5)
    with mutator.using({"op": "3x3"}, context=c):
        weights = mutator.source.make([mutator.source.sites["op/3x3"]], mutator.context(c))[0]
    terms = [w.diff(dim=0).square().mean() / w.square().mean() for w in weights.values()]
    torch.testing.assert_close(smoothness(mutator, c), torch.stack(terms).mean())


def test_constant_contexts_cost_nothing_and_slow_ones_less_than_fast_ones(mutator):
    steady = moments(1).expand(6, 3)
    assert smoothness(mutator, steady).item() < 1e-9
    slow, fast = steady + 0.05 * moments(6), steady + moments(6)
    assert smoothness(mutator, slow) < smoothness(mutator, fast)


def test_descending_it_makes_weights_smoother(mutator):
    c = moments(6)
    optimizer = torch.optim.Adam(mutator.parameters(), lr=0.01)
    before = smoothness(mutator, c).item()
    for _ in range(30):
        optimizer.zero_grad()
        smoothness(mutator, c).backward()
        optimizer.step()
    assert smoothness(mutator, c).item() < before / 2


def test_another_architecture_may_be_named(mutator):
    assert smoothness(mutator, moments(4), {"op": "5x5"}) != smoothness(mutator, moments(4))


def test_one_moment_and_an_architecture_without_generated_weights_are_refused(mutator):
    for context, sample in ((moments(1), {"op": "3x3"}), (moments(4), {"op": "pool"})):
        with pytest.raises(ContextError, match="No weight changes over time"):
            smoothness(mutator, context, sample)


def test_weights_of_each_layers_own_input_are_refused():
    """They used to be looked for where nothing had run."""
    own = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=OwnInputContext(8))
    own.reset()
    with pytest.raises(ContextError, match="made from each layer's own input .*Take another encoder"):
        smoothness(own, None)
