"""Weights that a layer's own input asks for: by hand, alone in a batch, searched, frozen, saved, refused."""

from __future__ import annotations

import copy

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from spaces import CellSpace, Everything, OneChoice, image, vector
from torch import nn
from torch.utils.checkpoint import checkpoint

import nni_dynconv
from nni_dynconv import (
    ArchitectureEncoder,
    DartsSampler,
    DynamicFlopsProfiler,
    DynamicNumParamsProfiler,
    DynamicOp,
    DynamicWeightMutator,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    export,
    lift,
    ops,
)
from nni_dynconv.errors import ConfigError, ContextError, ShapeError, SpaceError
from nni_dynconv.sites.spec import WeightSpec
from nni_dynconv.supernet.mixture import without_fusion


class Net(ModelSpace):
    """Channels first, channels last, and a normalisation."""

    def __init__(self, walk=lambda layer, x: layer(x)):
        super().__init__()
        self.first = ops.DynamicConv2d(1, 4, 3, padding=1)
        self.second = ops.DynamicSepConv(4, 6, 3)
        self.norm = ops.DynamicGroupNorm(2, 6)
        self.head = nn.Sequential(ops.DynamicLayerNorm(6), ops.DynamicLinear(6, 2))
        self.walk = walk

    def forward(self, x):
        x = self.norm(self.walk(self.second, self.first(x)))
        return self.head(x.flatten(2).mT).mean(1)


def make(space=Net, sampler=RandomSampler, **options):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=0), context=OwnInputContext(6), **options)
    mutator.reset()
    for _ in range(3):  # running statistics
        mutator(image(8, seed=3))
    return mutator.eval()


def test_each_layer_is_its_op_with_the_weights_of_its_own_input():
    mutator = make(base="learned")
    encoder, source, x = mutator.context, mutator.source, image()
    y = mutator(x)
    rows = {name: row for row, name in enumerate(encoder.inputs)}
    assert list(rows) == ["first", "second", "norm", "head.0", "head.1"]

    def run(name, op, x, pooled):
        norm, linear = encoder.norms[rows[name]], encoder.maps[rows[name]]
        code = linear((pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt())
        return op(x, source.make([source.sites[name]], code)[0])

    space = mutator.space
    x = run("first", space.first, x, x.mean((2, 3)))
    x = run("second", space.second, x, x.mean((2, 3)))
    x = run("norm", space.norm, x, x.mean((2, 3))).flatten(2).mT
    x = run("head.0", space.head[0], x, x.mean(1))
    torch.testing.assert_close(run("head.1", space.head[1], x, x.mean(1)).mean(1), y)


@pytest.mark.parametrize("space", [Net, OneChoice, Everything, CellSpace])
@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler, DartsSampler])
def test_a_sample_alone_has_the_weights_that_it_has_in_a_batch(space, sampler):
    mutator = make(space, sampler)
    y = mutator(image())
    for row in range(3):
        torch.testing.assert_close(mutator(image()[row : row + 1]), y[row : row + 1], rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_trains():
    mutator = make().train()
    mutator(image(1)).sum().backward()
    assert all(one.grad is not None for one in mutator.source.parameters())


@pytest.mark.parametrize("space", [Net, Everything, CellSpace])
def test_a_frozen_and_a_saved_network_do_what_the_supernet_does(space, tmp_path):
    mutator = make(space, base="learned")
    sample = mutator.reset()
    network = mutator.freeze(sample)
    expected = mutator(image())
    torch.testing.assert_close(network(image()), expected)
    alive = [site.name for site in mutator.plan(sample)]
    assert list(network.source.encoder.inputs) == alive and len(network.source.encoder.maps) == len(alive)
    export.save(network, tmp_path)
    loaded = nni_dynconv.load(tmp_path)
    torch.testing.assert_close(loaded(image()), expected)
    torch.testing.assert_close(copy.deepcopy(loaded)(image(1)), network(image(1)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer_gives_the_same_gradients(reentrant):
    found = []
    for walk in (lambda layer, x: layer(x), lambda layer, x: checkpoint(layer, x, use_reentrant=reentrant)):
        mutator = make(lambda walk=walk: Net(walk)).double()
        mutator(image().double().requires_grad_()).square().sum().backward()
        found.append({name: one.grad for name, one in mutator.named_parameters()})
    torch.testing.assert_close(*found)


def test_gradients_reach_the_input_through_the_weights():
    mutator = make()
    x = image().requires_grad_()
    mutator(x).sum().backward()
    with mutator.using({}):
        mutator.space.first(x.detach()).sum().backward()
    through = mutator.source.encoder.maps[0].weight.grad
    assert x.grad.any() and through.any()


def test_an_op_that_runs_twice_has_the_weights_of_each_input():
    class Twice(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = ops.DynamicConv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.op(self.op(x))

    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Twice(), context=OwnInputContext(4)).eval()
    x = torch.randn(3, 2, 5, 5)
    y = mutator(x)
    with mutator.using({}):
        torch.testing.assert_close(mutator.space.op(mutator.space.op(x)), y)


def test_a_mixture_of_convolutions_runs_as_one():
    class Mixed(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice([ops.DynamicConv2d(16, 16, K, padding=K // 2) for K in (1, 3, 5)], label="op")

        def forward(self, x):
            return self.op(x)

    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Mixed(), sampler=DartsSampler(), context=OwnInputContext(4)).eval()
    mutator.reset()
    x = torch.randn(3, 16, 32, 32)
    fused = mutator(x)
    with without_fusion():
        torch.testing.assert_close(fused, mutator(x), rtol=1e-4, atol=1e-5)


def test_with_static_sites_and_the_architecture(tmp_path):
    per_site = {"first": {"delta": "none"}, "head.*": {"delta": "scale"}}
    mutator = make(base="learned", per_site=per_site)
    assert list(mutator.context.inputs) == ["second", "norm", "head.0", "head.1"]
    network = mutator.freeze({})
    export.save(network, tmp_path, example=image())
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image()), mutator(image()))
    mutator = make(OneChoice, GdasSampler, architecture=ArchitectureEncoder(4))
    with mutator.using({"op": "5x5"}):
        expected = mutator(image())
    torch.testing.assert_close(mutator.freeze({"op": "5x5"})(image()), expected)


def test_a_lifted_network_starts_out_as_the_original_and_a_frozen_one_compiles():
    torch._dynamo.reset()
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), image()
    expected = network(x)
    mutator = lift(network).mutator(context=OwnInputContext(4)).eval()
    torch.testing.assert_close(mutator(x), expected)
    frozen = mutator.freeze({})
    torch.testing.assert_close(torch.compile(frozen, fullgraph=True, backend="eager")(x), expected)


def test_nnis_own_strategies_may_choose():
    mutator = DynamicWeightMutator(OneChoice(), sampler=False, context=OwnInputContext(4))
    assert mutator.space(image()).shape == (3, 4, 6, 6)


def test_profilers_count_the_maps():
    space, x = OneChoice(), image(1)
    stored = DynamicNumParamsProfiler(space, x, context=OwnInputContext(6))
    costs = [
        DynamicFlopsProfiler(space, x, context=OwnInputContext(6)).profile({"op": name}) for name in ("3x3", "skip")
    ]
    assert costs[0] > costs[1]
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(), context=OwnInputContext(6))
    network = mutator.freeze({"op": "3x3"})
    assert stored.profile({"op": "3x3"}) == sum(one.numel() for one in network.parameters())


def test_contexts_and_indices_are_refused_in_words():
    mutator = make()
    for options in ({"context": vector()}, {"index": torch.zeros(3, dtype=torch.long)}):
        with pytest.raises(ContextError, match="made from each layer's own input .*Call `mutator\\(x\\)`"):
            mutator(image(), **options)
    with pytest.raises(ContextError, match="made from each layer's own input"):
        mutator.freeze({})(image(), vector())


def test_an_input_of_the_wrong_size_or_type_is_refused_by_site():
    mutator = make()
    with pytest.raises(
        ShapeError, match=r"Site `first`: the input must be a batch with 1 .* second axis, .*\(3, 2, 6, 6"
    ):
        mutator(torch.zeros(3, 2, 6, 6))
    with pytest.raises(ShapeError, match=r"Site `head.1`: .* with 6 channels on its last axis, but is \(6,\)"):
        mutator.context("head.1", torch.zeros(6))
    with pytest.raises(ContextError, match=r"Site `first`: the input is torch.float64, but .* `x.to\(torch.float32\)`"):
        mutator(image().double())


def test_an_error_of_the_encoder_itself_is_left_as_it_is():
    mutator = make()
    mutator.context.maps[0] = nn.Linear(2, 6)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        mutator(image())


def test_an_encoder_serves_one_mutator():
    encoder = OwnInputContext(4)
    DynamicWeightMutator(OneChoice(), context=encoder)
    with pytest.raises(ConfigError, match="This OwnInputContext serves another mutator already. Make one each"):
        DynamicWeightMutator(OneChoice(), context=encoder)


def test_an_op_that_does_not_tell_its_channels_is_refused_by_site():
    class Silent(DynamicOp):
        def weight_specs(self):
            return (WeightSpec("weight", (2,), 1),)

        def compute(self, x, weights):
            return x

    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = Silent()

    with pytest.raises(SpaceError, match="channels the input of site `op` has, but Silent has no `in_channels`"):
        DynamicWeightMutator(Space(), context=OwnInputContext(4))
