"""NNI's multi-trial strategies over a trained supernet."""

from __future__ import annotations

import logging

import pytest
import torch
from spaces import Everything, OneChoice, image

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace, model_context
from nni.nas.strategy import TPE, GridSearch, Random, RegularizedEvolution

from nni_dynconv import (
    DartsSampler,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    GdasSampler,
    RandomSampler,
    SupernetEvaluator,
)
from nni_dynconv.errors import ConfigError, SpaceError
from nni_dynconv.samplers import check_sample


def evaluator(space, sampler=RandomSampler):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space, sampler=sampler(seed=0))
    return mutator, SupernetEvaluator(mutator, lambda network: -network(image()).pow(2).mean(), calibrate=False)


def search(scoring, strategy, trials):
    engine = SequentialExecutionEngine(max_model_count=trials)
    strategy(RawFormatModelSpace(scoring.mutator.space, scoring), engine)
    return next(iter(strategy.list_models())).sample


@pytest.mark.parametrize("sampler", [RandomSampler, FairSampler, EnasSampler, DartsSampler, GdasSampler])
def test_all_architectures_are_scored_by_the_supernets_own_weights(sampler):
    mutator, scoring = evaluator(OneChoice(), sampler)
    before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
    best = search(scoring, GridSearch(), trials=10)
    assert {sample["op"] for sample, _ in scoring.scores} == {"3x3", "5x5", "pool", "skip"}
    for sample, score in scoring.scores:
        frozen = mutator.eval().freeze(sample)
        assert score == pytest.approx(-frozen(image()).pow(2).mean().item(), abs=1e-6)
    assert best == max(scoring.scores, key=lambda pair: pair[1])[0]
    torch.testing.assert_close(dict(mutator.space.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", [Random(seed=0), RegularizedEvolution(population_size=4, sample_size=2, seed=0)])
def test_a_space_with_every_kind_of_choice_is_searched_and_what_is_found_freezes(strategy):
    mutator, scoring = evaluator(Everything())
    best = search(scoring, strategy, trials=12)
    assert len(scoring.scores) == 12
    check_sample(best, mutator.choices)
    assert mutator.freeze(best)(image()).shape == (3, 2)
    with model_context(best):
        again = DynamicWeightMutator(Everything(), sampler=RandomSampler())
    assert again.choices == {} and again(image()).shape == (3, 2)


@pytest.mark.whole
def test_nnis_tpe_searches_it_too():
    _, scoring = evaluator(OneChoice())
    best = search(scoring, TPE(), trials=3)
    assert len(scoring.scores) == 3 and scoring.score(best) == max(score for _, score in scoring.scores)


def test_it_runs_in_an_experiment_that_sees_that_the_space_is_a_supernet(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    mutator, scoring = evaluator(OneChoice())
    experiment = NasExperiment(mutator.space, scoring, RegularizedEvolution(population_size=2, sample_size=1, seed=0))
    experiment.config.max_trial_number = 3
    experiment.run()
    (best,) = experiment.export_top_models(formatter="dict")
    assert len(scoring.scores) == 3 and scoring.score(best) == max(score for _, score in scoring.scores)
    logging.getLogger("nni").handlers.clear()


def test_scoring_leaves_the_drawn_sample_and_the_mode_as_they_were():
    mutator, scoring = evaluator(OneChoice())
    mutator.train()
    drawn = mutator.reset()
    modes = []
    scoring.score_of_network = lambda network: modes.append((network.space.training, torch.is_grad_enabled())) or 1.0
    assert scoring.score({"op": "pool"}) == 1.0
    assert modes == [(False, False)]
    assert mutator.space.training and mutator.sample == drawn


def test_scoring_leaves_each_modules_own_mode_as_it_was():
    mutator, scoring = evaluator(OneChoice())
    mutator.space.train()
    still = next(module for module in mutator.space.modules() if not list(module.children()))
    still.eval()
    scoring.score({"op": "pool"})
    assert mutator.space.training and not still.training


class Normed(OneChoice):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(super().forward(x))


def normed():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(seed=0))
    for seed in range(8):
        mutator.reset()
        mutator(5 * image(seed=seed))
    return mutator, lambda network: -network(image()).pow(2).mean()


def test_an_architecture_is_scored_by_batchnorm_statistics_of_its_own():
    """It used to be scored by the supernet's, a mixture over all architectures."""
    mutator, score = normed()
    batches = [(image(seed=seed), 0) for seed in range(3)]
    before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
    scoring, plain = SupernetEvaluator(mutator, score, iter(batches)), SupernetEvaluator(mutator, score, False)
    for sample in ({"op": "3x3"}, {"op": "pool"}):
        own, mixed = mutator.freeze(sample, calibrate=batches).eval(), mutator.freeze(sample).eval()
        assert scoring.score(sample) == pytest.approx(score(own).item(), rel=1e-5)
        assert plain.score(sample) == pytest.approx(score(mixed).item(), rel=1e-5)
        assert scoring.score(sample) != pytest.approx(plain.score(sample), rel=0.1)
    torch.testing.assert_close(dict(mutator.space.state_dict()), before, rtol=0, atol=0)
    assert mutator.space.norm.training and mutator.space.norm.momentum == 0.1


def test_a_space_with_batchnorm_is_warned_about_where_no_batches_are_given():
    mutator, score = normed()
    with pytest.warns(UserWarning, match="has 1 BatchNorms.*`calibrate=batches`, or write `calibrate=False`"):
        SupernetEvaluator(mutator, score)
    with pytest.raises(ConfigError, match="`calibrate` is empty. Give training batches, or `calibrate=False`"):
        SupernetEvaluator(mutator, score, calibrate=[])


def test_a_model_of_another_space_is_refused():
    _, scoring = evaluator(OneChoice())
    with pytest.raises(SpaceError, match=r"was given a RawFormatModelSpace. Write .NasExperiment\(mutator.space"):
        SequentialExecutionEngine().submit_models(RawFormatModelSpace(OneChoice(), scoring).freeze({"op": "pool"}))
    with pytest.raises(SpaceError, match="was given a OneChoice"):
        scoring.evaluate(OneChoice())
