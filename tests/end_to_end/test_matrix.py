"""Every strategy over a dynamic and a lifted space, through `NasExperiment`: each ends with a sample that freezes.

`make test-nni` runs these alone. NNI's ENAS and PolicyBasedRL need the extra `nni-rl`.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import ExpressionConstraint
from nni.nas import strategy
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import nn

from nni_dynconv import (
    DynamicConv2d,
    DynamicWeightMutator,
    RandomSampler,
    VectorContext,
    lift,
)
from nni_dynconv.samplers import check_sample
from nni_dynconv.settings import TABLES, load_object

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nni,
    pytest.mark.filterwarnings("ignore"),
]

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
TRIALS = 3

needs_tianshou = pytest.mark.skipif(
    importlib.util.find_spec("tianshou") is None,
    reason="tianshou is not installed: `pip install nni_dynconv[nni-rl]`",
)
ONE_SHOT = {
    "DARTS": strategy.DARTS,
    "GumbelDARTS": strategy.GumbelDARTS,
    "Proxyless": strategy.Proxyless,
    "RandomOneShot": strategy.RandomOneShot,
    "ENAS": lambda: strategy.ENAS(reward_metric_name="val_acc", batches_per_update=2),
}
MULTI_TRIAL = {
    "Random": strategy.Random,
    "GridSearch": strategy.GridSearch,
    "RegularizedEvolution": lambda: strategy.RegularizedEvolution(population_size=2, sample_size=2),
    "TPE": strategy.TPE,
    "PolicyBasedRL": lambda: strategy.PolicyBasedRL(samples_per_update=2),
}
OURS = {name: load_object(part.dotted) for name, part in TABLES["sampler"].items()}


def marked(names):
    return [pytest.param(one, marks=needs_tianshou if one in ("ENAS", "PolicyBasedRL") else ()) for one in names]


def test_the_page_has_every_strategy():
    page = (Path(__file__).parents[2] / "docs" / "support.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| yes", page.split("## NNI's own strategies")[1], re.MULTILINE)
    assert rows == [*ONE_SHOT, *MULTI_TRIAL]


class Images(ModelSpace):
    """Two choices among convolutions that `make` makes, and a head."""

    def __init__(self, make):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        first = {f"conv{size}": make(4, 4, size, padding=size // 2) for size in (1, 3, 5)}
        self.first = LayerChoice(first, label="first")
        self.second = LayerChoice({"conv3": make(4, 4, 3, padding=1), "skip": nn.Identity()}, label="second")
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x))).mean((2, 3)))


def a_mutator(kind, **options):
    torch.manual_seed(0)
    context = VectorContext(2, 8)
    if kind == "dynamic":
        return DynamicWeightMutator(Images(DynamicConv2d), context=context, **options)
    return lift(Images(nn.Conv2d)).mutator(context=context, **options)


def examples(number=16):
    """Images of three patterns, each with a context of two numbers: `((x, context), y)`."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(number) % 3
    x = torch.randn(number, 1, 6, 6, generator=generator) + y[:, None, None, None]
    return list(zip(zip(x, torch.randn(number, 2, generator=generator), strict=True), y, strict=True))


def classification():
    loaders = {f"{name}_dataloaders": DataLoader(examples(), 8) for name in ("train", "val")}
    return Classification(num_classes=3, max_epochs=1, accelerator="cpu", **loaders, **QUIET)


def train(model):
    """What a user's function does with a trial's network."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for inputs, y in DataLoader(examples(), 8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), y)
        loss.backward()
        optimizer.step()
    nni.report_final_result(-loss.item())


EVALUATORS = {"Classification": classification, "FunctionalEvaluator": lambda: FunctionalEvaluator(train)}


@pytest.fixture(autouse=True)
def _own_nni_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    yield
    logging.getLogger("nni").handlers.clear()


def run(mutator, evaluator, search, models=None):
    """Run an experiment in this process, and check that what it exports freezes and runs."""
    torch.manual_seed(0)
    config = NasExperimentConfig("sequential", "raw")
    config.execution_engine.max_model_count = models
    experiment = NasExperiment(mutator.space, evaluator, search, config)
    experiment.run()
    (sample,) = experiment.export_top_models(formatter="dict")
    check_sample(sample, mutator.choices)
    network = mutator.eval().freeze(sample)
    (x, context), _ = next(iter(DataLoader(examples(), 4)))
    y = network(x, context)
    assert y.shape == (4, 3) and y.isfinite().all()
    assert [site.name for site in mutator.plan(sample).sites] == list(network.source.sites)
    return experiment


KINDS = pytest.mark.parametrize("kind", ["dynamic", "lifted"])


@KINDS
@pytest.mark.parametrize("name", marked(ONE_SHOT))
def test_a_one_shot_strategy_of_nnis_searches_it_and_its_sample_freezes(name, kind):
    mutator = a_mutator(kind, sampler=False)
    before = {key: value.clone() for key, value in mutator.source.named_parameters()}
    run(mutator, classification(), ONE_SHOT[name]())
    assert any(not torch.equal(value, before[key]) for key, value in mutator.source.named_parameters())


@needs_tianshou
@pytest.mark.parametrize("name", ["ENAS", "PolicyBasedRL"])
def test_the_policy_of_nnis_reinforcement_learning_learns(name, monkeypatch):
    from tianshou.policy import PPOPolicy

    learn, learned = PPOPolicy.learn, []

    def watched(self, *args, **kwargs):
        before = [one.clone() for one in self.parameters()]
        result = learn(self, *args, **kwargs)
        learned.append(any(not torch.equal(*pair) for pair in zip(before, self.parameters(), strict=True)))
        return result

    monkeypatch.setattr(PPOPolicy, "learn", watched)
    search, models = (ONE_SHOT[name], None) if name in ONE_SHOT else (MULTI_TRIAL[name], TRIALS)
    run(a_mutator("dynamic", sampler=False), classification(), search(), models)
    assert learned and all(learned)


@KINDS
@pytest.mark.parametrize("evaluator", list(EVALUATORS))
@pytest.mark.parametrize("name", marked(MULTI_TRIAL))
def test_a_multi_trial_strategy_searches_it_and_its_sample_freezes(name, evaluator, kind):
    mutator = a_mutator(kind, sampler=False)
    experiment = run(mutator, EVALUATORS[evaluator](), MULTI_TRIAL[name](), models=TRIALS)
    models = list(experiment.strategy.list_models(limit=None))
    assert len(models) == TRIALS and all(model.metric is not None for model in models)


@KINDS
@pytest.mark.parametrize("name", list(OURS))
def test_a_sampler_of_ours_searches_it_and_its_sample_freezes(name, kind):
    mutator = a_mutator(kind, sampler=OURS[name](seed=0))
    run(mutator, classification(), mutator.strategy(contenders=2, contender_batches=1))


@pytest.mark.parametrize("name", marked(MULTI_TRIAL))
def test_a_multi_trial_strategy_searches_a_trained_supernet_with_its_weights(name):
    mutator = a_mutator("dynamic", sampler=RandomSampler(seed=0))
    run(mutator, classification(), mutator.strategy(contenders=1, contender_batches=1))
    run(mutator, FunctionalEvaluator(score), MULTI_TRIAL[name](), models=TRIALS)


class Sized(ModelSpace):
    """Kernel size, channels and depth of dynamic convolutions are chosen, also under a constraint."""

    def __init__(self, constrained):
        super().__init__()
        width, kernel, depth = nni.choice("width", [4, 8]), nni.choice("kernel", [1, 3]), nni.choice("depth", [1, 2])
        if constrained:
            self.add_mutable(ExpressionConstraint(width * kernel * depth < 20, label="size"))
        self.stem = DynamicConv2d(1, width, 1)
        self.body = Repeat(lambda index: DynamicConv2d(width, width, kernel, padding="same"), depth)
        self.head = DynamicConv2d(width, 3, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x))).mean((2, 3))


def sized(constrained):
    return DynamicWeightMutator(Sized(constrained), sampler=False, context=VectorContext(2, 8))


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", marked(MULTI_TRIAL))
def test_a_multi_trial_strategy_searches_sizes_and_keeps_their_constraint(name, constrained):
    mutator = sized(constrained)
    if constrained and name == "TPE":
        with pytest.raises(NotImplementedError, match="as_legacy_dict is not implemented .*ExpressionConstraint"):
            run(mutator, FunctionalEvaluator(train), MULTI_TRIAL[name](), models=TRIALS)
        return
    experiment = run(mutator, FunctionalEvaluator(train), MULTI_TRIAL[name](), models=TRIALS)
    for model in experiment.strategy.list_models(limit=None):
        size = model.sample["width"] * model.sample["kernel"] * model.sample["depth"]
        assert size < 20 or not constrained


@pytest.mark.parametrize("name", marked(ONE_SHOT))
def test_a_one_shot_strategy_of_nnis_refuses_sizes_and_leaves_the_space_as_it_was(name):
    mutator = sized(constrained=False)
    before = dict(mutator.space.named_modules())
    with pytest.raises(TypeError, match="has dangling mutables"):
        ONE_SHOT[name]().mutate_model(mutator.space)
    after = dict(mutator.space.named_modules())
    assert after.keys() == before.keys() and all(after[key] is before[key] for key in before)


class Bounded(Images):
    """Two choices among layers, under a constraint."""

    def __init__(self):
        super().__init__(DynamicConv2d)
        self.add_mutable(
            ExpressionConstraint((self.first.choice != "conv5") | (self.second.choice == "skip"), label="b")
        )


@pytest.mark.parametrize("name", marked(ONE_SHOT))
def test_a_one_shot_strategy_of_nnis_refuses_constraints_but_for_one(name):
    mutator = DynamicWeightMutator(Bounded(), sampler=False, context=VectorContext(2, 8))
    if name == "RandomOneShot":
        assert ONE_SHOT[name]().mutate_model(mutator.space) is mutator.space
        return
    with pytest.raises(TypeError, match="only supports? categorical variables, but got .*ExpressionConstraint"):
        ONE_SHOT[name]().mutate_model(mutator.space)


def score(model):
    with torch.no_grad():
        (inputs, y), *_ = DataLoader(examples(), 16)
        nni.report_final_result(-F.cross_entropy(model(inputs), y).item())
