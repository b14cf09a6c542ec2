"""The penalty on weights that change from one moment to the next."""

from __future__ import annotations

import pytest
import torch
from often import by_default
from spaces import CHANNELS, OneChoice
from toy_task import ToyModule

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer

from nni_dynconv import (
    DartsSampler,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    VectorContext,
    smoothness,
)
from nni_dynconv.errors import ConfigError, ContextError
from nni_dynconv.search.smoothing import smoothness_of_batch


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


# In a search


def task(epochs=8, batch_size=8, samples=32):
    """Moments of one sequence, in order, of noise: what the context says is of no use."""
    x, c = torch.randn(2, samples, 3, generator=torch.Generator().manual_seed(0)).unbind()
    images, targets = x[:, :1, None, None].expand(-1, 1, 6, 6), torch.zeros(samples, CHANNELS, 6, 6)
    data = [((one, moment), y) for one, moment, y in zip(images, c, targets, strict=True)]
    quiet = dict.fromkeys(("enable_checkpointing", "logger", "enable_progress_bar", "enable_model_summary"), False)
    return Lightning(
        ToyModule(),
        Trainer(max_epochs=epochs, accelerator="cpu", **quiet),
        train_dataloaders=DataLoader(data, batch_size=batch_size),
        val_dataloaders=DataLoader(data, batch_size=batch_size),
    )


def searched(weight, sampler=RandomSampler, **options):
    torch.manual_seed(0)
    made = DynamicWeightMutator(OneChoice(), sampler=sampler(seed=0), context=VectorContext(3, dim=8))
    trained = task(**options)
    made.strategy(contenders=0, smoothness=weight).mutate_evaluator(trained).evaluate(made.space)
    return made, trained.trainer.callback_metrics


@pytest.mark.slow
@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=[RandomSampler, EnasSampler, DartsSampler, GdasSampler]))
def test_a_search_with_the_penalty_ends_with_smoother_weights(sampler):
    (rough, plain), (smooth, logged) = searched(0.0, sampler), searched(30.0, sampler)
    after, before = (sum(smoothness(one, moments(8), {"op": op}) for op in ("3x3", "5x5")) for one in (smooth, rough))
    assert after < 0.5 * before
    assert "smoothness" in logged and "smoothness" not in plain


def test_a_search_without_it_computes_nothing(monkeypatch):
    monkeypatch.setattr("nni_dynconv.search.learning.step.smoothness_of_batch", None)
    searched(0.0, epochs=1)


def test_the_penalty_of_a_batch_is_that_of_its_contexts_and_0_where_nothing_is_generated(mutator):
    x, c = torch.randn(5, 1, 6, 6), moments(5)
    assert torch.equal(smoothness_of_batch(mutator, ((x, c), None)), smoothness(mutator, c))
    mutator.sample = {"op": "skip"}
    assert smoothness_of_batch(mutator, [[x, c], None]) == 0


@pytest.mark.parametrize("c", [moments(1), moments(1)[0]])
def test_a_context_that_a_batch_shares_is_refused(mutator, c):
    with pytest.raises(ContextError, match="a batch has one context for its 4 samples.*two moments or more"):
        smoothness_of_batch(mutator, ((torch.randn(4, 1, 6, 6), c), None))


def test_a_batch_of_one_moment_is_refused_in_words_that_help():
    with pytest.raises(ContextError, match="one context for its 1 samples.*`drop_last=True`"):
        searched(0.1, batch_size=1)


@pytest.mark.parametrize(
    ("batch", "form"), [((torch.ones(2), 0), r"\(Tensor, int\)"), ({"x": 1}, "a dict")], ids=["pair", "dict"]
)
def test_a_batch_without_a_context_is_refused(mutator, batch, form):
    with pytest.raises(ContextError, match=rf"needs batches `\(\(x, context\), y\)`.*but this one is {form}"):
        smoothness_of_batch(mutator, batch)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused(mutator, weight):
    with pytest.raises(
        ConfigError, match=f"`smoothness` in `DynamicStrategy` is {weight}, but must be (0 or more|a finite number)"
    ):
        mutator.strategy(smoothness=weight)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "has no context encoder. Give the mutator one"),
        ({"context": OwnInputContext(8)}, "made from each layer's own input"),
        ({"context": VectorContext(3, dim=8), "base": "learned", "delta": "none"}, "no weight depends on the context"),
    ],
    ids=["no context", "own input", "static"],
)
def test_a_search_whose_weights_cannot_change_over_time_is_refused(settings, words):
    made = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), **settings)
    with pytest.raises(ConfigError, match=words):
        made.strategy(smoothness=0.1)
    made.strategy(smoothness=0.0)
