"""The strategy in NNI's `NasExperiment`, for each sampler, and a planted best by each."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from often import by_default
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Trainer
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from pytorch_lightning import Callback

from nni_dynconv import DartsSampler, DynamicConv2d, DynamicWeightMutator, EnasSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import ConfigError, ScopeError, SpaceError
from nni_dynconv.samplers import check_sample

SAMPLERS = [RandomSampler, EnasSampler, DartsSampler, GdasSampler]


pytestmark = pytest.mark.usefixtures("own_nni_folders")


@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=SAMPLERS))
def test_it_runs_in_a_nas_experiment_and_exports_a_sample_that_freezes(sampler):
    mutator = DynamicWeightMutator(ToySpace(), sampler=sampler(seed=0))
    task = evaluator(epochs=2, batches=4)
    before = {name: value.clone() for name, value in mutator.controller.named_parameters()}
    experiment = NasExperiment(mutator.space, task, mutator.strategy(contenders=4))
    experiment.run()
    (best,) = experiment.export_top_models(formatter="dict")
    check_sample(best, mutator.choices)
    assert mutator.freeze(best)(torch.rand(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    assert any(not torch.equal(value, before[name]) for name, value in mutator.controller.named_parameters())
    assert {"entropy", "train_loss", "val_loss"} <= set(task.trainer.callback_metrics)
    assert "prob/first/3" in task.trainer.callback_metrics
    logging.getLogger("nni").handlers.clear()


@pytest.mark.parametrize("settings", [{"unroll": 0.1}, {"mixture": "softmax", "unroll": 0.1, "beta_decay": 0.1}])
def test_a_search_learns_by_the_options_of_darts(settings):
    sampler = DartsSampler(0, learning_rate=0.1, **settings)
    mutator = DynamicWeightMutator(ToySpace(), sampler=sampler)
    told = {"contenders": 2, "rerank": 0, "final_epochs": 0, "warmup_epochs": 1}
    NasExperiment(mutator.space, evaluator(epochs=2, batches=4), mutator.strategy(**told)).run()
    assert all(alpha.detach().any() and alpha.isfinite().all() for alpha in sampler.alphas)
    assert sampler.decay == sampler.beta_decay
    logging.getLogger("nni").handlers.clear()


def test_the_experiment_must_search_the_mutators_own_space():
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    with pytest.raises(SpaceError, match=r"Write `NasExperiment\(mutator.space, evaluator, mutator.strategy\(\)\)`"):
        mutator.strategy().mutate_model(ToySpace())


def test_without_a_sampler_there_is_no_strategy():
    with pytest.raises(ScopeError, match="sampler=False"):
        DynamicWeightMutator(ToySpace(), sampler=False).strategy()


def test_an_unknown_option_is_refused_with_the_one_that_was_meant():
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    with pytest.raises(ConfigError, match="no option `warmup_epoch`. Did you mean `warmup_epochs`?"):
        mutator.strategy(warmup_epoch=3)
    with pytest.raises(ConfigError, match="no option `xyz`. Known: `warmup_epochs`, "):
        mutator.strategy(xyz=[])
    with pytest.raises(ConfigError, match="no option `mutation_hooks`. Did you mean `mutation`?"):
        mutator.strategy(mutation_hooks=[])  # NNI's base class takes it, and nothing came of it


def test_without_a_batch_to_compare_on_it_is_refused_before_the_search():
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    with pytest.raises(
        ConfigError, match="`contender_batches` in .* is 0, but must be 1 or more.*set `contenders` to 0"
    ):
        mutator.strategy(contender_batches=0)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("epochs", "warmup", "rates"),
    [
        (1, 0, [1, 3 / 4, 1 / 2, 1 / 4]),
        (2, 0, [1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8]),
        (2, 1, [1, 3 / 4, 1 / 2, 1 / 4]),
        (2, 2, []),
    ],
)
def test_the_architecture_slows_down_over_the_steps_that_it_learns_in(epochs, warmup, rates):
    """Its rate was zero in the last epoch, which still paid for a backward a step; one epoch had no schedule at all."""
    mutator, seen, taus = DynamicWeightMutator(ToySpace(), sampler=GdasSampler(0, learning_rate=1.0)), [], []

    class Rates(Callback):
        of_search = True

        def on_before_optimizer_step(self, trainer, module, optimizer):
            if getattr(optimizer, "is_arch_optimizer", False):
                seen.append(optimizer.param_groups[0]["lr"])
                taus.append(mutator.sampler.tau)

    task = evaluator(epochs, batches=4)
    task.trainer.callbacks.append(Rates())
    NasExperiment(mutator.space, task, mutator.strategy(warmup_epochs=warmup, contenders=0)).run()
    assert seen == pytest.approx(rates)
    falling = [4.0 - 3.5 * step / (len(rates) - 1) for step in range(len(rates))]
    assert taus == pytest.approx(falling) and mutator.sampler.tau == (0.5 if rates else 4.0)


def test_the_weight_of_an_entropy_falls_after_the_warm_up():
    """It had fallen by half when learning began."""
    mutator, seen = DynamicWeightMutator(ToySpace(), sampler=EnasSampler(0, entropy_weight_end=0.0)), []
    observe = mutator.sampler.observe

    def watched(sample, reward):
        seen.append(mutator.sampler.entropy_weight)
        observe(sample, reward)

    mutator.sampler.observe = watched
    task = evaluator(epochs=2, batches=3)
    NasExperiment(mutator.space, task, mutator.strategy(warmup_epochs=1, contenders=0)).run()
    assert seen == pytest.approx([0.01, 0.005, 0.0])


class NoChoice(ToySpace):
    def __init__(self):
        super().__init__()
        self.first, self.last = DynamicConv2d(1, 2, 3, padding=1), DynamicConv2d(2, 1, 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_space_without_choices_is_trained(sampler):
    """A sampler that learns by gradient asked for an optimizer of nothing."""
    mutator = DynamicWeightMutator(NoChoice(), sampler=sampler(seed=0))
    before = [one.clone() for one in mutator.parameters()]
    mutator.strategy().mutate_evaluator(evaluator(1, 2)).evaluate(mutator.space)
    assert any(not torch.equal(one, old) for one, old in zip(mutator.parameters(), before, strict=True))


class PlantedSpace(ModelSpace):
    """Two branches; the image moved by two pixels needs a 5x5 kernel, moved by three one that is dilated by three."""

    def __init__(self):
        super().__init__()
        for name in ("two", "three"):
            candidates = {f"conv{k}": DynamicConv2d(1, 1, k, padding=k // 2, bias=False) for k in (1, 3, 5)}
            candidates["dilated"] = DynamicConv2d(1, 1, 3, padding=3, dilation=3, bias=False)
            setattr(self, name, LayerChoice({**candidates, "skip": torch.nn.Identity()}, label=name))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * torch.cat([self.two(x), self.three(x)], dim=1)


BEST = {"two": "conv5", "three": "dilated"}


def planted_batch(generator):
    x = torch.randn(16, 1, 12, 12, generator=generator)
    moved = [F.pad(x, (by, 0))[..., : x.shape[-1]] for by in (2, 3)]
    return x, torch.cat(moved, dim=1)


# Rewards are worth something once the weights are: samplers that learn by them wait for a third of the search. A
# gradient tells candidates apart while the weights still learn, and vanishes where they have: there they go slowly.
SEARCHES = {  # steps, steps before the architecture learns, learning rate of the weights, settings
    RandomSampler: (450, 150, 0.01, {}),
    EnasSampler: (450, 150, 0.01, {}),
    DartsSampler: (700, 0, 0.001, {"learning_rate": 0.05}),
    GdasSampler: (800, 80, 0.001, {"learning_rate": 0.03}),
}


def find(sampler, seed):
    """Search in a plain loop: weights on one batch, architecture on another."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    steps, warm_up, rate, options = SEARCHES[sampler]
    made = sampler(seed=seed, **options)
    mutator = DynamicWeightMutator(PlantedSpace(), sampler=made, base="learned")
    roles = mutator.parameters_by_role()
    optimizer = torch.optim.Adam(roles["weights"] + roles["controller"], lr=rate)
    architecture = made.optimizer()
    for step in range(steps):
        made.anneal(max(step - warm_up, 0) / (steps - warm_up))
        mutator.reset()
        _learn(mutator, optimizer, _loss(mutator, planted_batch(generator)))
        if step >= warm_up and architecture is not None:
            batch = planted_batch(generator)
            _learn(mutator, architecture, mutator.architecture_loss(lambda held_out=batch: _loss(mutator, held_out)))
        elif step >= warm_up:
            made.observe(mutator.reset(), -_loss(mutator, planted_batch(generator)).item())
    return mutator.export()


def _learn(mutator, optimizer, loss):
    mutator.zero_grad()
    loss.backward()
    optimizer.step()


def _loss(mutator, batch):
    x, y = batch
    return F.mse_loss(mutator(x), y)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_planted_best_architecture_is_found_from_9_of_10_seeds(sampler):
    found = [find(sampler, seed) for seed in range(10)]
    assert sum(one == BEST for one in found) >= 9, [one for one in found if one != BEST]


# Where it is


@pytest.mark.whole
def test_a_search_tells_where_it_is_unless_lightnings_bar_does(capsys):
    """Comparing and re-ranking used to be silent."""
    for bar in (False, True):
        mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(seed=0))
        made = evaluator()
        if bar:
            made.trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
        mutator.strategy(contenders=3, rerank=2, rerank_steps=1).mutate_evaluator(made).evaluate(mutator.space)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(("gone", "left"))]
        told = list(dict.fromkeys(line.split(",")[0].strip() for line in lines))
        trainings = [] if bar else ["search", "final training"]
        assert told == [*trainings[:1], "comparing", "re-ranking", *trainings[1:]]
