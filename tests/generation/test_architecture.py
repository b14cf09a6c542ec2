"""Weights that are made for the architecture they stand in: coded, learned through, frozen, saved, refused."""

from __future__ import annotations

import copy

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from often import each_once
from spaces import CellSpace, Everything, OneChoice, conv, image, vector
from torch import nn
from torch.utils.checkpoint import checkpoint

import nni_dynconv
from nni_dynconv import (
    ArchitectureEncoder,
    DartsSampler,
    DynamicFlopsProfiler,
    DynamicNumParamsProfiler,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
    export,
)
from nni_dynconv.errors import ConfigError, ScopeError


class Beside(ModelSpace):
    """A choice that does not touch the output, beside a layer that stands in every architecture."""

    def __init__(self, walk=lambda layer, x: layer(x)):
        super().__init__()
        self.stem = conv(3)
        self.op = LayerChoice({"a": conv(1), "b": conv(3), "skip": nn.Identity()}, label="op")
        self.walk = walk

    def forward(self, x):
        y = self.walk(self.stem, x)
        return y + 0.0 * self.op(y)


def planes():
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def make(space=Beside, sampler=RandomSampler, context=True, **options):
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if context else None
    architecture = ArchitectureEncoder(6)
    mutator = DynamicWeightMutator(
        space(), sampler=sampler(seed=0), context=encoder, architecture=architecture, **options
    )
    mutator.reset()
    return mutator.eval()


def inputs_of(mutator):
    return planes() if isinstance(mutator.space, Beside) else image()


@pytest.mark.parametrize("context", [True, False])
def test_two_architectures_that_share_a_site_have_other_weights_for_it(context):
    mutator = make(context=context)
    given_context = vector() if context else None
    outputs = {}
    for name in ("a", "b", "skip"):
        with mutator.using({"op": name}):
            outputs[name] = mutator(planes(), context=given_context)
            torch.testing.assert_close(outputs[name], mutator(planes(), context=given_context))
    assert (outputs["a"] - outputs["b"]).abs().max() > 1e-2 < (outputs["b"] - outputs["skip"]).abs().max()
    plain = DynamicWeightMutator(Beside(), sampler=RandomSampler(), context=VectorContext(5, 8)).eval()
    with plain.using({"op": "a"}):
        before = plain(planes(), context=vector())
    with plain.using({"op": "b"}):
        torch.testing.assert_close(plain(planes(), context=vector()), before)


@pytest.mark.parametrize("sampler", [DartsSampler, GdasSampler])
@pytest.mark.parametrize("context", [True, False])
def test_the_architecture_learns_through_the_weights_alone(sampler, context):
    """The choice's own outputs are multiplied by zero."""
    mutator = make(sampler=sampler, context=context)
    mutator(planes(), context=vector() if context else None).square().sum().backward()
    gradient = next(mutator.sampler.parameters()).grad
    assert gradient is not None and gradient.abs().max() > 1e-4
    assert mutator.source.architecture.linear.weight.grad.any()


@pytest.mark.parametrize("sampler", [RandomSampler, EnasSampler, GdasSampler, DartsSampler])
@pytest.mark.parametrize("space", [Everything, CellSpace])
def test_the_code_is_the_linear_map_of_what_is_chosen(space, sampler):
    mutator = make(space, sampler)
    encoder = mutator.source.architecture
    rows, start = torch.zeros(sum(encoder.sizes.values())), 0
    for label, choice in mutator.choices.items():
        names = range(choice.inputs) if choice.inputs else choice.candidates
        for row, name in enumerate(names):
            if not mutator.sampler.mixes:
                chosen = mutator.sample[label]
                rows[start + row] = float(name in chosen if choice.inputs else name == chosen)
            else:
                probability = mutator.sampler.probabilities(label)
                member = [name in one if choice.inputs else name == one for one in choice.candidates]
                rows[start + row] = probability[torch.tensor(member)].sum()
        start += len(names)
    found = encoder(mutator._decide().shares)
    expected = (encoder.linear.weight @ rows + encoder.linear.bias) / len(encoder.sizes) ** 0.5
    torch.testing.assert_close(found, expected)
    if sampler.learns == "gradient":
        alphas = [one for one in mutator.sampler.parameters() if len(one) > 1]
        assert all(one.any() for one in torch.autograd.grad(found @ torch.arange(6.0), alphas))


@each_once(space=[Everything, CellSpace], sampler=[RandomSampler, EnasSampler, GdasSampler, DartsSampler])
def test_a_frozen_and_a_saved_network_keep_the_code(space, sampler, tmp_path):
    mutator = make(space, sampler, base="learned")
    sample = mutator.export()
    network = mutator.freeze(sample)
    with mutator.using(sample):
        expected = mutator(image(), context=vector())
    torch.testing.assert_close(network(image(), vector()), expected)
    assert "architecture.code" in dict(network.source.named_buffers())
    assert not any(name.startswith("architecture") for name, _ in network.source.named_parameters())
    export.save(network, tmp_path)
    loaded = nni_dynconv.load(tmp_path)
    torch.testing.assert_close(loaded(image(), vector()), expected)
    torch.testing.assert_close(copy.deepcopy(loaded).double()(image().double(), vector().double()).float(), expected)


def test_networks_without_a_context_are_saved_too(tmp_path):
    mutator = make(OneChoice, context=False)
    network = mutator.freeze({"op": "3x3"})
    export.save(network, tmp_path, example=image())
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image()), network(image()))
    other = mutator.freeze({"op": "5x5"})
    assert not torch.allclose(other.source.architecture.code, network.source.architecture.code)


@pytest.mark.slow
def test_a_frozen_network_compiles_and_so_does_a_step_under_using():
    torch._dynamo.reset()
    mutator = make()
    network = mutator.freeze({"op": "a"})
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(planes(), vector()), network(planes(), vector()))
    whole = torch.compile(mutator, fullgraph=True, backend="eager")
    with mutator.using({"op": "b"}):
        torch.testing.assert_close(whole(planes(), context=vector()), mutator(planes(), context=vector()))


def test_samples_that_share_a_context_and_one_context_for_all():
    mutator = make(sampler=GdasSampler)
    index = torch.tensor([1, 0, 1])
    found = mutator(planes(), context=vector(2), index=index)
    torch.testing.assert_close(found, mutator(planes(), context=vector(2)[index]))
    shared = mutator(planes(), context=vector(1))
    torch.testing.assert_close(shared, mutator(planes(), context=vector(1).expand(3, -1)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer_gives_the_same_gradients(reentrant):
    def walk(layer, x):
        return checkpoint(layer, x.requires_grad_(), use_reentrant=reentrant)

    gradients = []
    for one in (make(sampler=GdasSampler), make(lambda: Beside(walk), sampler=GdasSampler)):
        one.double()
        one(planes().double(), context=vector().double()).square().sum().backward()
        gradients.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)


def test_a_reset_between_a_forward_and_what_runs_it_again_is_refused():
    mutator = make(
        lambda: Beside(lambda layer, x: checkpoint(layer, x.requires_grad_(), use_reentrant=True)), GdasSampler
    )
    y = mutator(planes(), context=vector())
    for _ in range(8):
        mutator.reset()
    with pytest.raises(ScopeError, match="`mutator.reset\\(\\)` was called between a forward and the backward"):
        y.sum().backward()


def test_a_copy_and_a_supernets_file_go_on_alike(tmp_path):
    mutator, other = make(sampler=GdasSampler), make(sampler=GdasSampler)
    with torch.no_grad():
        mutator.source.architecture.linear.weight.add_(1.0)
    twin = copy.deepcopy(mutator)
    export.save_supernet(mutator, tmp_path)
    export.load_supernet(other, tmp_path)
    sample = {"op": "a"}
    with mutator.using(sample), twin.using(sample), other.using(sample):
        expected = mutator(planes(), context=vector())
        for one in (twin, other):
            torch.testing.assert_close(one(planes(), context=vector()), expected)
    assert twin.reset() == mutator.reset()
    torch.testing.assert_close(twin(planes(), context=vector()), mutator(planes(), context=vector()))


def test_neither_code_drowns_the_other():
    """Contexts far larger than the architecture's code, which is standardised, used to be all that counted."""
    mutator = make()
    made = {}
    for name in ("a", "b"):
        for size in (1.0, 1000.0):
            with mutator.using({"op": name}, context=size * vector()):
                made[name, size] = mutator(planes())
    for size in (1.0, 1000.0):
        between = (made["a", size] - made["b", size]).std()
        assert between > 0.1 * made["a", size].std()


def test_profilers_count_what_is_stored():
    space, x = OneChoice(), image(1)
    options = {"context": VectorContext(5, 8), "base": "learned"}
    sizes = DynamicNumParamsProfiler(space, x, architecture=ArchitectureEncoder(6), **options)
    flops = DynamicFlopsProfiler(space, x, architecture=ArchitectureEncoder(6), **options).profile({"op": "3x3"})
    assert flops > DynamicFlopsProfiler(space, x, **options).profile({"op": "3x3"})
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(), architecture=ArchitectureEncoder(6), **options)
    network = mutator.freeze({"op": "3x3"})
    assert sizes.profile({"op": "3x3"}) == sum(one.numel() for one in network.parameters())


# Refused


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(ConfigError, match="`architecture` needs a sampler of this package: with `sampler=False`"):
        DynamicWeightMutator(OneChoice(), sampler=False, architecture=ArchitectureEncoder(4))
    with pytest.raises(ConfigError, match="`architecture` is 4, but must be a ArchitectureEncoder"):
        DynamicWeightMutator(OneChoice(), architecture=4)
    with pytest.raises(ConfigError, match="`dim` in `ArchitectureEncoder` is 1, but must be 2 or more"):
        ArchitectureEncoder(1)
    encoder = ArchitectureEncoder(4)
    DynamicWeightMutator(OneChoice(), architecture=encoder)
    with pytest.raises(ConfigError, match="This ArchitectureEncoder serves another mutator already. Make one each"):
        DynamicWeightMutator(OneChoice(), architecture=encoder)

    class NoChoice(ModelSpace):
        def __init__(self):
            super().__init__()
            self.conv = conv()

    with pytest.raises(ConfigError, match="`architecture` is given, but the space has no choice. Leave it out"):
        DynamicWeightMutator(NoChoice(), architecture=ArchitectureEncoder(4))


def test_a_copy_of_the_space_alone_does_not_know_its_architecture():
    space = copy.deepcopy(make().space)
    with pytest.raises(ScopeError, match="These weights are made for an architecture, and nothing tells which"):
        space(planes(), context=vector())
