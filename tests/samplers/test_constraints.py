"""NNI's constraints on a dynamic space: what is drawn keeps them, what is exported too, and a mixture is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import CHANNELS, conv, image

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import Constraint, ExpressionConstraint, MutableList
from nni.mutable.exception import ConstraintViolation
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat

from nni_dynconv import DynamicConv2d, DynamicWeightMutator, EnasSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import SampleError, SpaceError
from nni_dynconv.samplers import choices_of

SAMPLERS = [RandomSampler, EnasSampler, GdasSampler]
LIMIT = 1000


class Sized(ModelSpace):
    """Kernel size, channels and depth are chosen, and the weights of all blocks together are limited."""

    def __init__(self):
        super().__init__()
        width, kernel = nni.choice("width", [4, 8]), nni.choice("kernel", [1, 3, 5])
        depth = nni.choice("depth", [1, 2, 3])
        self.add_mutable(ExpressionConstraint(width * width * kernel * kernel * depth < LIMIT, label="size"))
        self.stem = DynamicConv2d(1, width, 1, bias=False)
        self.body = Repeat(lambda index: DynamicConv2d(width, width, kernel, padding="same", bias=False), depth)
        self.head = DynamicConv2d(width, 2, 1, bias=False)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


def generated(sample):
    width, kernel, depth = sample["width"], sample["kernel"], sample["depth"]
    return width + depth * width * width * kernel * kernel + 2 * width


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_architecture_keeps_the_constraint_and_makes_weights_of_its_size(sampler):
    mutator = DynamicWeightMutator(Sized(), sampler=sampler(seed=0))
    assert list(mutator.choices) == ["width", "kernel", "depth"]
    seen = set()
    for _ in range(20):
        sample = mutator.reset()
        seen.add(tuple(sample.values()))
        assert mutator.plan().num_generated == generated(sample) < LIMIT + 24
        mutator(image()).square().sum().backward()
    assert len(seen) > 5
    best = mutator.eval().export()
    with mutator.using(best):
        torch.testing.assert_close(mutator.freeze(best)(image()), mutator(image()))


def test_what_is_exported_keeps_the_constraint_where_the_most_probable_breaks_it():
    mutator = DynamicWeightMutator(Sized(), sampler=GdasSampler(seed=0))
    for label, weights in {"width": [0.0, 2.0], "kernel": [-5.0, 0.5, 3.0], "depth": [0.0, 0.2, 5.0]}.items():
        mutator.sampler.alpha(label).data = torch.tensor(weights)
    # 8, 5, 3 is most probable, and too large; of those with depth 3, `8, 3` is too large, `4, 5` too, `4, 3` fits
    assert mutator.export() == {"width": 4, "kernel": 3, "depth": 3}


def test_enas_exports_what_keeps_the_constraint():
    mutator = DynamicWeightMutator(Sized(), sampler=EnasSampler(seed=0, learning_rate=0.1))
    for _ in range(40):  # it learns to want the largest
        sample = mutator.reset()
        mutator.sampler.observe(sample, float(generated(sample)))
    assert generated(mutator.export()) < LIMIT + 24


def bound(constraint, sizes, sampler=GdasSampler):
    labels = [nni.choice(f"label{row}", list(range(size))) for row, size in enumerate(sizes)]
    made = sampler(seed=0)
    made.bind(choices_of(MutableList([*labels, constraint(labels)])))
    return made


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_best_is_the_most_probable_that_is_allowed(seed, limit):
    sampler = bound(lambda labels: ExpressionConstraint(sum(labels[1:], labels[0]) < limit), (3, 4, 2))
    generator = torch.Generator().manual_seed(seed)
    for alpha in sampler.alphas:
        alpha.data = 3 * torch.randn(len(alpha), generator=generator)
    everything = [(a, b, c) for a in range(3) for b in range(4) for c in range(2) if a + b + c < limit]
    allowed = [dict(zip(sampler.choices, one, strict=True)) for one in everything]
    expected = max(allowed, key=lambda one: sampler.log_prob(one).item())
    assert sampler.best() == expected


def test_where_all_are_equally_probable_the_best_is_one_that_is_allowed_and_nothing_is_drawn_for_it():
    sampler = bound(lambda labels: ExpressionConstraint(sum(labels[1:], labels[0]) == 10), (2,) * 20)
    state, drawn = sampler.generator.get_state(), copy.copy(sampler._drawn)
    best = sampler.best()
    assert sum(best.values()) == 10 and best == sampler.best()
    assert torch.equal(state, sampler.generator.get_state()) and drawn == sampler._drawn


def test_gdas_scales_by_the_factor_of_what_was_accepted():
    sampler = bound(lambda labels: ExpressionConstraint(labels[0] + labels[1] == 4), (3, 3))
    for _ in range(5):
        sample = sampler.sample()
        for label, value in sample.items():
            torch.testing.assert_close(sampler.relaxed(label)[value].detach(), torch.tensor(1.0))


@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler])
def test_a_constraint_that_nothing_keeps_is_told_in_words(sampler):
    made = bound(lambda labels: ExpressionConstraint(labels[0] > 7, label="impossible"), (3, 3), sampler)
    refused = "1000 draws in a row broke a constraint of the space, .*impossible.*, and nothing keeps it.*Loosen"
    for _ in range(2):
        with pytest.raises(SampleError, match=refused):
            made.sample()
    if sampler is not RandomSampler:  # whose best without a result is a draw
        with pytest.raises(SampleError, match="No architecture was found that keeps .*impossible.*Loosen"):
            made.best()


def test_a_sample_that_breaks_a_constraint_is_refused_where_it_is_given():
    mutator = DynamicWeightMutator(Sized(), sampler=RandomSampler(seed=0))
    sample = {"width": 8, "kernel": 5, "depth": 3}
    with (
        pytest.raises(SampleError, match="The sample .*'kernel': 5.* breaks a constraint of the space: .*size"),
        mutator.using(sample),
    ):
        pass
    with pytest.raises(SampleError, match="breaks a constraint of the space"):
        mutator.freeze(sample)


class Different(Constraint):
    """A constraint of a user: two labels differ."""

    def __init__(self, first, second):
        self.label = "different"
        self.first, self.second = first, second

    def leaf_mutables(self, is_leaf):
        yield self.first
        yield self.second
        yield self

    def check_contains(self, sample):
        if sample[self.first.label] == sample[self.second.label]:
            return ConstraintViolation("both are the same")
        return None


class Pair(MutableModule):
    """Two choices inside a module that holds the constraint between them itself."""

    def __init__(self):
        super().__init__()
        self.one = LayerChoice({"a": conv(1), "b": conv(3)}, label="one")
        self.two = LayerChoice({"b": conv(3), "a": conv(1)}, label="two")  # NNI asks that the first ones keep it
        self.add_mutable(Different(self.one.choice, self.two.choice))

    def forward(self, x):
        return self.two(self.one(x))


class Inside(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 1)
        self.pair = Pair()

    def forward(self, x):
        return self.pair(self.stem(x))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_constraint_of_ones_own_may_stand_in_any_module(sampler):
    mutator = DynamicWeightMutator(Inside(), sampler=sampler(seed=0))
    for _ in range(10):
        sample = mutator.reset()
        assert sample["one"] != sample["two"]
        mutator(image()).sum().backward()
    best = mutator.eval().export()
    with mutator.using(best):
        torch.testing.assert_close(mutator.freeze(best)(image()), mutator(image()))


class Outside(ModelSpace):
    """The space itself chooses by a label, where it is built."""

    def __init__(self):
        super().__init__()
        kernel = nni.choice("kernel", [1, 3])
        self.add_mutable(kernel)
        self.conv = conv(nni.mutable.ensure_frozen(kernel))

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_choice_that_no_module_makes_is_refused(sampler):
    with pytest.raises(SpaceError, match="Label `kernel` is chosen by Outside itself .*a supernet is built once"):
        DynamicWeightMutator(Outside(), sampler=sampler(seed=0))
