"""The sandwich rule: each step of the weights takes the largest, the smallest and some drawn architectures."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import Categorical, ExpressionConstraint, MutableList
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from pytorch_lightning import Callback
from torch import nn

from nni_dynconv import DartsSampler, DynamicConv2d, DynamicWeightMutator, EnasSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import CandidateError, ConfigError
from nni_dynconv.samplers import Choice, Choices, choices_of
from nni_dynconv.search.costing import extremes

pytestmark = pytest.mark.usefixtures("own_nni_folders")


class Widths(ModelSpace):
    """A kernel size and a number of groups among numbers, and a layer among others."""

    def __init__(self):
        super().__init__()
        size = nni.choice("size", [3, 1, 5])
        self.first = DynamicConv2d(1, 4, size, padding="same")
        self.op = LayerChoice({"pool": nn.AvgPool2d(3, 1, 1), "conv": nn.Conv2d(4, 4, 3, padding=1)}, label="op")
        self.last = DynamicConv2d(4, 1, 1)

    def forward(self, x):
        return self.last(self.op(self.first(x)))


LARGEST, SMALLEST = {"size": 5, "op": "conv"}, {"size": 1, "op": "pool"}


def trained(sampler=RandomSampler, batches=3, space=Widths, **options):
    """The architectures of each step, and the mutator."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=0), base="learned")
    task, seen = evaluator(epochs=1, batches=batches), []
    step = task.module.training_step

    def training_step(batch, batch_idx):
        if torch.is_grad_enabled() and mutator.space.training:
            seen.append((batch_idx, dict(mutator.sample)))
        return step(batch, batch_idx)

    task.module.training_step = training_step
    mutator.strategy(contenders=0, final_epochs=0, **options).mutate_evaluator(task).evaluate(mutator.space)
    return [[sample for number, sample in seen if number == one] for one in range(batches)], mutator


@pytest.mark.parametrize("drawn", [1, 3])
def test_each_step_takes_the_largest_the_smallest_and_some_drawn(drawn):
    steps, _ = trained(sandwich=drawn)
    assert all(step[:2] == [LARGEST, SMALLEST] and len(step) == 2 + drawn for step in steps)
    assert len({tuple(one.values()) for step in steps for one in step[2:]}) > 1


@pytest.mark.parametrize("sampler", [EnasSampler, GdasSampler])
def test_a_sampler_that_learns_meanwhile_learns_by_what_it_drew(sampler):
    steps, mutator = trained(sampler, sandwich=1)
    assert all(step[-3:-1] == [LARGEST, SMALLEST] for step in steps)
    assert any(one.abs().max() > 0 for one in mutator.sampler.parameters())


class Gradients(Callback):
    """Note the gradients that a step ends with."""

    def on_train_batch_end(self, trainer, module, *_):
        self.found = {name: one.grad for name, one in module.mutator.space.named_parameters()}


def test_a_step_goes_along_the_mean_of_the_gradients():
    """Their sum, as the papers have it, would need a learning rate of its own."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Widths(), sampler=RandomSampler(seed=0), base="learned")
    other, task, gradients = copy.deepcopy(mutator), evaluator(epochs=1, batches=1), Gradients()
    task.module.configure_optimizers = lambda: torch.optim.SGD(task.module.parameters(), lr=0.0)
    task.trainer.callbacks.append(gradients)
    mutator.strategy(contenders=0, final_epochs=0, sandwich=2).mutate_evaluator(task).evaluate(mutator.space)
    x, y = next(iter(task.train_dataloaders))
    other.reset()  # whose call tells the multiply-adds
    drawn = [other.reset(), other.reset()]
    assert mutator.sample == drawn[-1]
    for sample in (LARGEST, SMALLEST, *drawn):
        with other.using(sample):
            (F.mse_loss(other.space(x), y) / 4).backward()
    expected = {name: one.grad for name, one in other.space.named_parameters()}
    torch.testing.assert_close(gradients.found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.whole
def test_largest_and_smallest_train_better_under_the_sandwich():
    """With one drawn path a step each end of the 6 architectures is trained a sixth as often."""

    def losses(**options):
        torch.manual_seed(0)
        mutator = DynamicWeightMutator(Widths(), sampler=RandomSampler(seed=0), base="learned")
        task = evaluator(epochs=4, batches=16)
        mutator.strategy(contenders=0, final_epochs=0, **options).mutate_evaluator(task).evaluate(mutator.space)
        x, y = next(iter(task.val_dataloaders))
        found = []
        for sample in (LARGEST, SMALLEST):
            with torch.no_grad(), mutator.using(sample):
                found.append(F.mse_loss(mutator.space(x), y).item())
        return found

    assert all(sandwich < plain for sandwich, plain in zip(losses(sandwich=1), losses(), strict=True))


def test_an_end_that_raises_is_told_by_its_name():
    def fail(*_):
        if torch.is_grad_enabled():
            raise ValueError("too large")

    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Widths(), sampler=RandomSampler(seed=0), base="learned")
    mutator.space.op["conv"].register_forward_hook(fail)
    searching = mutator.strategy(contenders=0, final_epochs=0, sandwich=1).mutate_evaluator(evaluator(1, 2))
    with pytest.raises(CandidateError, match="architecture {'size': 5, 'op': 'conv'}, candidate `conv`.*too large"):
        searching.evaluate(mutator.space)


def test_a_sampler_that_mixes_all_candidates_has_no_sandwich():
    mutator = DynamicWeightMutator(ToySpace(), sampler=DartsSampler(seed=0))
    with pytest.raises(ConfigError, match="`sandwich` of DynamicStrategy is 2.*DartsSampler trains the mixture of all"):
        mutator.strategy(sandwich=2)


def test_a_space_without_choices_is_trained_as_it_is():
    class Fixed(ModelSpace):
        def __init__(self):
            super().__init__()
            self.conv = DynamicConv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(x)

    steps, _ = trained(space=Fixed, sandwich=2)
    assert [len(step) for step in steps] == [1, 1, 1]


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_where_costs_add_up_the_ends_are_those_of_all_architectures(prices):
    """Names say nothing of the prices behind them."""
    named = {f"l{place}": tuple(map(str, range(len(one)))) for place, one in enumerate(prices)}
    choices = Choices({label: Choice(label, candidates) for label, candidates in named.items()})

    def cost(sample):
        return float(sum(prices[place][int(sample[f"l{place}"])] for place in range(len(prices))))

    everyone = [dict(zip(named, one, strict=True)) for one in itertools.product(*named.values())]
    costs = [cost(one) for one in everyone]
    largest, smallest = extremes(choices, cost, everyone[len(everyone) // 2])
    assert (cost(largest), cost(smallest)) == (max(costs), min(costs))


def test_ends_keep_the_constraints_of_a_space():
    one, two = Categorical([8, 16, 32], label="one"), Categorical([8, 16, 32], label="two")
    choices = choices_of(MutableList([one, two, ExpressionConstraint(one + two <= 40, label="sum")]))
    largest, smallest = extremes(choices, lambda sample: sample["one"] * sample["two"], {"one": 8, "two": 8})
    assert (largest["one"] + largest["two"], smallest) == (40, {"one": 8, "two": 8})
