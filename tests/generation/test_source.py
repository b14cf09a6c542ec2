"""How weights are made: together, when they are asked for, and kept no longer than needed; also in low precision."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import ModelSpace
from spaces import CHANNELS, CellSpace, Everything, OneChoice, conv, image, vector
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import (
    ChunkedController,
    DartsSampler,
    DynamicWeightMutator,
    FeatureMapContext,
    GdasSampler,
    RandomSampler,
    SequenceContext,
    VectorContext,
)
from nni_dynconv.errors import ContextError
from nni_dynconv.generation import decision, delta
from nni_dynconv.sites.spec import Site, WeightSpec


class Calls(ChunkedController):
    """Notes which sites each call made."""

    def bind(self, sites, context_dim):
        super().bind(sites, context_dim)
        self.calls = []

    def generate(self, sites, context):
        self.calls.append([site.name for site in sites])
        return super().generate(sites, context)


class Row(ModelSpace):
    """Layers in a row; `walk` says how a forward goes through them, with checkpoints or without gradient."""

    def __init__(self, count=4, walk=lambda layer, x, number: layer(x)):
        super().__init__()
        self.layers = nn.ModuleList(conv(1) for _ in range(count))
        self.walk = walk

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = self.walk(layer, x, number)
        return x


def make(space=Row, sampler=RandomSampler, context=True, base="none"):
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if context is True else context
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=0), context=encoder, controller=Calls(), base=base)
    mutator.reset()
    return mutator


def planes(batch=3):
    return torch.randn(batch, CHANNELS, 6, 6, generator=torch.Generator().manual_seed(0))


def step(mutator, x, context):
    mutator.zero_grad()
    y = mutator(x, context=context)
    y.square().mean().backward()
    return {"y": y.detach(), **{name: p.grad.clone() for name, p in mutator.named_parameters() if p.grad is not None}}


# Together


@pytest.mark.parametrize("base", ["none", "learned"])
@pytest.mark.parametrize("space", [Everything, CellSpace])
@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler, DartsSampler])
def test_sites_made_together_are_those_made_one_by_one(space, sampler, base, monkeypatch):
    mutator = make(space, sampler, base=base).double().eval()
    x, context = image().double(), vector().double()
    together = step(mutator, x, context)
    calls = len(mutator.controller.calls)
    monkeypatch.setattr(decision, "TOGETHER", 1)
    alone = step(mutator, x, context)
    torch.testing.assert_close(together, alone)
    assert calls == 1 < len(mutator.controller.calls) - calls == len(mutator.plan())


def test_a_plan_of_one_architecture_is_made_in_one_call():
    mutator = make(Everything)
    mutator(image(), context=vector())
    assert mutator.controller.calls == [[site.name for site in mutator.plan()]]
    frozen = mutator.freeze()
    frozen.source.controller.calls.clear()
    frozen(image(), vector())
    assert len(frozen.source.controller.calls) == 1


def test_many_values_are_made_a_part_at_a_time(monkeypatch):
    mutator = make()
    monkeypatch.setattr(decision, "TOGETHER", 2 * 3 * mutator.plan().sites[0].num_generated)  # two sites for 3 samples
    mutator(planes(), context=vector())
    assert mutator.controller.calls == [["layers.0", "layers.1"], ["layers.2", "layers.3"]]
    mutator.controller.calls.clear()
    mutator(planes(), context=vector()[:1])  # six sites for all samples
    assert len(mutator.controller.calls) == 1


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_runs_are_the_plan_in_order_and_hold_what_is_allowed(sizes, sets):
    sites = [Site(str(i), "DynamicLinear", (WeightSpec("weight", (size, 1), 1),)) for i, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "TOGETHER", 60)
        runs = decision.runs_of(sites, sets)
    values = [sum(sets * site.num_generated for site in run) for run in runs]
    assert [site for run in runs for site in run] == sites
    assert all(len(run) == 1 or total <= 60 for run, total in zip(runs, values, strict=True))
    firsts = [sets * run[0].num_generated for run in runs[1:]]
    assert all(total + first > 60 for total, first in zip(values, firsts, strict=False))


def test_an_architecture_that_nobody_knows_is_made_site_by_site():
    """NNI's own strategy chooses: what runs is known only when it does."""
    mutator = DynamicWeightMutator(Row(), sampler=False, controller=Calls())
    mutator.space(planes())
    assert mutator.controller.calls == [[f"layers.{number}"] for number in range(4)]


# No longer than needed


def test_without_gradient_weights_are_let_go_when_they_are_used():
    alive = []

    def walk(layer, x, number):
        y = layer(x)
        alive.append(sum(one() is not None for one in made))
        return y

    made = []
    mutator = make(lambda: Row(walk=walk))
    add = delta._add

    def noting(*parts):
        tensor = add(*parts)
        if tensor.dim() > 2:  # no bias
            made.append(weakref.ref(tensor))
        return tensor

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(delta, "_add", noting)
        mutator(planes(), context=vector())
    assert alive == [3, 2, 1, 0]


@pytest.mark.parametrize("gradient", [True, False])
def test_an_op_that_runs_again_uses_the_same_weights(gradient):
    mutator = make(lambda: Row(1, walk=lambda layer, x, number: layer(layer(layer(x))) - layer(x)))
    with torch.set_grad_enabled(gradient):
        y = mutator(planes(), context=vector())
    with mutator.using({}, context=vector()), torch.no_grad():
        layer = mutator.space.layers[0]
        torch.testing.assert_close(y, layer(layer(layer(planes()))) - layer(planes()))
    assert len(mutator.controller.calls) <= (3 if gradient else 4)


# Where gradients are wanted for a part only


def test_what_was_made_without_gradient_is_not_used_where_one_is_wanted():
    def walk(layer, x, number):
        with torch.set_grad_enabled(number > 0):
            return layer(x)

    found, expected = step(make(lambda: Row(walk=walk)), planes(), vector()), step(make(), planes(), vector())
    torch.testing.assert_close(found["y"], expected["y"])
    assert found["space.weight_source.controller.out.weight"].abs().sum() > 0


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("which", [{0}, {3}, {1, 2}, {0, 1, 2, 3}])
def test_checkpointed_layers_beside_others_give_the_same_gradients(which, reentrant):
    def walk(layer, x, number):
        if number not in which:
            return layer(x)
        return checkpoint(layer, x.requires_grad_() if x.is_leaf else x, use_reentrant=reentrant)

    found, expected = (
        step(make(space).double(), planes().double(), vector().double()) for space in (lambda: Row(walk=walk), Row)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_inside_using_finds_the_forward_that_it_repeats(reentrant):
    """It used to look into the block of `using`, which has no context."""
    mutator = make(lambda: Row(walk=lambda layer, x, number: checkpoint(layer, x, use_reentrant=reentrant)))
    with mutator.using({}):
        found = step(mutator, planes().requires_grad_(), vector())
    torch.testing.assert_close(found, step(make(), planes(), vector()))


# Precision and memory format


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("space", [OneChoice, Everything, CellSpace])
@pytest.mark.parametrize("base", ["none", "learned"])
def test_autocast_stays_near_float32(space, base, dtype):
    mutator = make(space, base=base)
    sample = {"op": "5x5"} if space is OneChoice else mutator.sample
    with mutator.using(sample):
        expected = step(mutator, image(), vector())
        with torch.autocast("cpu", dtype=dtype):
            found = step(mutator, image(), vector())
        with torch.autocast("cpu", dtype=dtype):
            index = torch.tensor([1, 0, 1])
            by_index = mutator(image(), context=vector()[:2], index=index)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.isfinite().all()
        far = 0.05 if name == "y" else 0.45  # 8 bits; a gradient comes through many layers and norms
        assert (value.float() - expected[name]).norm() <= far * expected[name].norm(), name
    assert by_index.isfinite().all()


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("space", [OneChoice, Everything, CellSpace])
def test_channels_last_gives_the_same(space, per_sample):
    mutator = make(space)
    context = vector() if per_sample else vector()[:1]
    with mutator.using({"op": "5x5"} if space is OneChoice else mutator.sample):
        expected = step(mutator, image(), context)
        mutator.to(memory_format=torch.channels_last)
        found = step(mutator, image().to(memory_format=torch.channels_last), context)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


# Contexts that do not fit


def test_a_second_positional_argument_is_the_networks_own():
    mutator = make()
    with pytest.raises(ContextError, match=r"the 2 positional arguments go to the network itself. Call `mutator\(x, c"):
        mutator(planes(), vector())


@pytest.mark.parametrize(
    ("encoder", "context"),
    [
        (VectorContext(5, 8), torch.zeros(3, 5)),
        (SequenceContext(5, 8), torch.zeros(3, 2, 5)),
        (FeatureMapContext(5, 8), torch.zeros(3, 5, 4, 4)),
    ],
)
def test_a_context_of_another_type_names_both(encoder, context):
    mutator = make(context=encoder)
    message = rf"The context is torch.float64, but its encoder {type(encoder).__name__} is torch.float32"
    with pytest.raises(ContextError, match=message):
        mutator(planes(), context=context.double())


def test_an_encoders_own_error_is_left_as_it_is():
    class Broken(nn.Module):
        out_dim = 5

        def forward(self, context):
            raise RuntimeError("the encoder's own words")

    mutator = make(context=Broken())
    with pytest.raises(RuntimeError, match="the encoder's own words"):
        mutator(planes(), context=vector().double())


class Looked(nn.Module):
    """Numbers of kinds, looked up; its own layer is of the wrong size."""

    out_dim = 8

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(5, 4)
        self.layer = nn.Linear(6, 8)

    def forward(self, context):
        return self.layer(self.rows(context))


def test_an_error_of_an_encoder_that_looks_numbers_up_is_left_as_it_is():
    mutator = make(context=Looked())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        mutator(planes(), context=torch.arange(3))
    assert not isinstance(caught.value, ContextError)


def test_pixels_as_bytes_are_told_which_type_is_wanted():
    mutator = make(context=VectorContext(5, 8))
    with pytest.raises(
        ContextError, match="The context is torch.uint8, but its encoder VectorContext is torch.float32"
    ):
        mutator(planes(), context=torch.zeros(3, 5, dtype=torch.uint8))
