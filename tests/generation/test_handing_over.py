"""Weights by name, for ops on their own; and controllers that hand over a module in the place of a site's op."""

from __future__ import annotations

import pytest
import torch
from spaces import CHANNELS, Everything, OneChoice, image, vector
from torch import nn

import nni_dynconv
from nni_dynconv import ChunkedController, DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext, export
from nni_dynconv.errors import ConfigError, ContextError, SampleError, ShapeError
from nni_dynconv.ops import DynamicConv2d

FIVE = {"op": "5x5"}


def mutator_of(space=OneChoice, controller=None, encoder=None, **settings):
    given = {"context": VectorContext(5, 8) if encoder is None else encoder, "controller": controller}
    return DynamicWeightMutator(space(), sampler=RandomSampler(0), **given, **settings).eval()


# Weights by name


@pytest.mark.parametrize("delta", ["full", "scale", "low_rank"])
def test_weights_are_those_that_the_ops_use_in_a_forward(delta):
    mutator = mutator_of(base="learned", delta=delta)
    x, context = image(3), vector(3)
    weights = mutator.weights(FIVE, context)
    assert set(weights) == {"op/5x5"} and weights["op/5x5"]["weight"].shape == (3, CHANNELS, CHANNELS, 5, 5)
    op = DynamicConv2d(CHANNELS, CHANNELS, 5, padding=2)
    with mutator.using(FIVE):
        torch.testing.assert_close(op(mutator.space.stem(x), weights["op/5x5"]), mutator(x, context=context))


def test_weights_of_one_context_have_no_batch_and_learn():
    mutator = mutator_of()
    mutator.reset()
    weights = mutator.weights(FIVE, vector(1))["op/5x5"]
    assert weights["weight"].shape == (CHANNELS, CHANNELS, 5, 5)
    weights["weight"].square().sum().backward()
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in mutator.controller.parameters())


def test_weights_of_the_drawn_architecture_are_those_of_its_plan():
    mutator = mutator_of(Everything)
    mutator.reset()
    with torch.no_grad():
        weights = mutator.weights(context=vector(2))
    assert set(weights) == {site.name for site in mutator.plan()}
    for site in mutator.plan():
        assert {name: tuple(one.shape[1:]) for name, one in weights[site.name].items()} == {
            spec.name: spec.shape for spec in site.specs
        }


def test_weights_that_cannot_be_told_are_refused():
    with pytest.raises(ContextError, match="context is missing"):
        mutator_of().weights(FIVE)
    with pytest.raises(ContextError, match="each layer's own input"):
        mutator_of(encoder=OwnInputContext(8)).weights(FIVE)
    with pytest.raises(SampleError):
        mutator_of().weights({"op": "9x9"}, vector(1))


# Modules in the place of ops


class Gated(nn.Module):
    """A convolution whose channels the code scales, which tells samples apart by more than weights."""

    def __init__(self, channels, dim):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(channels, channels, 5, padding=2), nn.Linear(dim, channels)

    def forward(self, x, code):
        return self.conv(x).tanh() * self.gate(code)[..., None, None]


class Handing(ChunkedController):
    """Makes weights, but for kernels of 5."""

    def bind(self, sites, context_dim):
        super().bind(sites, context_dim)
        own = [one.name for one in sites if one.specs[0].shape[-1:] == (5,)]
        self.ready = nn.ModuleDict({name.replace("/", "_"): Gated(CHANNELS, context_dim) for name in own})

    def module_for(self, site):
        return dict(self.ready).get(site.name.replace("/", "_"))

    def select(self, sites):
        super().select(sites)
        kept = {site.name.replace("/", "_") for site in sites}
        self.ready = nn.ModuleDict({name: one for name, one in self.ready.items() if name in kept})

    def generate(self, sites, context):
        assert all(self.module_for(site) is None for site in sites)  # nothing is made for what is not asked
        return super().generate(sites, context)


@pytest.fixture
def handing():
    return mutator_of(controller=Handing())


def by_hand(mutator, x, context):
    module = mutator.controller.ready["op_5x5"]
    return module(mutator.space.stem(x), mutator.source.encoder(context))


def test_a_module_stands_in_for_an_op_and_sees_the_code_of_each_sample(handing):
    x, context = image(4), vector(4)
    with handing.using(FIVE):
        y = handing(x, context=context)
        torch.testing.assert_close(y, by_hand(handing, x, context))
        alone = torch.cat([handing(x[k : k + 1], context=context[k : k + 1]) for k in range(4)])
        torch.testing.assert_close(y, alone)
        index = torch.tensor([1, 0, 1, 3])
        torch.testing.assert_close(handing(x, context=context, index=index), by_hand(handing, x, context[index]))
    assert handing.weights(FIVE, context) == {}
    with handing.using({"op": "3x3"}):
        assert handing(x, context=context).shape == y.shape and set(handing.weights({"op": "3x3"}, context))


def test_a_module_learns_with_the_rest(handing):
    with handing.using(FIVE):
        handing(image(2), context=vector(2)).sum().backward()
    assert all(one.grad is not None for one in handing.controller.ready["op_5x5"].parameters())


def test_a_module_sees_the_code_of_the_ops_own_input():
    mutator = mutator_of(controller=Handing(), encoder=OwnInputContext(8))
    x = image(3)
    with mutator.using(FIVE):
        y = mutator(x)
        torch.testing.assert_close(y, torch.cat([mutator(one[None]) for one in x]))


def test_a_frozen_network_keeps_the_module_and_comes_back_from_a_file(handing, tmp_path):
    network, x, context = handing.freeze(FIVE), image(4), vector(4)
    torch.testing.assert_close(network(x, context), by_hand(handing, x, context))
    assert (
        list(network.source.controller.ready) == ["op_5x5"]
        and not handing.freeze({"op": "3x3"}).source.controller.ready
    )
    export.save(network, tmp_path, example=(x, context))
    again = nni_dynconv.load(tmp_path, trust=[__name__.partition(".")[0], __name__])
    torch.testing.assert_close(again(x, context), network(x, context))


def test_a_module_is_exported_for_any_number_of_samples(handing):
    batch = torch.export.Dim("batch")
    network = handing.freeze(FIVE)
    exported = torch.export.export(
        network, (image(3), vector(3)), dynamic_shapes=({0: batch}, {0: batch}), strict=False
    ).module()
    torch.testing.assert_close(exported(image(7), vector(7)), network(image(7), vector(7)))


def test_weights_that_there_are_none_of_cannot_be_kept(handing):
    network = handing.freeze(FIVE)
    for attempt in (lambda: export.bake(network, vector(1)), lambda: export.cluster(network, [vector(9)], 2)):
        with pytest.raises(ContextError, match="At site `op/5x5` Handing hands over a module"):
            attempt()
    with pytest.raises(ContextError, match="hands over a module"), network.fixed(vector(1)):
        pass


def test_a_module_where_a_base_would_be_nobodys_is_refused():
    mutator = mutator_of(controller=Handing(), base="learned")
    with (
        mutator.using(FIVE),
        pytest.raises(ConfigError, match=r"hands over a module at site `op/5x5`, which has a base"),
    ):
        mutator(image(2), context=vector(2))
    mutator = mutator_of(controller=Handing(), base="learned", per_site={"op/5x5": {"base": None}})
    with mutator.using(FIVE):
        mutator(image(2), context=vector(2))


def test_other_samples_than_the_forwards_are_refused(handing):
    op = (
        handing.space.op.ops["5x5"]
        if hasattr(handing.space.op, "ops")
        else dict(handing.space.op.named_children())["5x5"]
    )
    with handing.using(FIVE, vector(2)), pytest.raises(ShapeError, match="its input has 6 samples, but the forward 2"):
        op(torch.randn(6, CHANNELS, 8, 8))
