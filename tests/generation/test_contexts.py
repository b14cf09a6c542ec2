"""Contexts survive their encoding: other contexts make other weights, of whatever size values are and codes."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from often import each_once
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import ArchitectureEncoder, FeatureMapContext, OwnInputContext, SequenceContext, VectorContext
from nni_dynconv.generation.controllers import (
    BasisController,
    ChunkedController,
    CoordinateController,
    ExpertsController,
    FlatController,
)
from nni_dynconv.generation.controllers.pieces import CodeInput
from nni_dynconv.generation.parts import Gathered, Standardise
from nni_dynconv.sites.spec import Site, WeightSpec

SITES = [Site("conv", "DynamicConv2d", (WeightSpec("weight", (4, 4, 3, 3), 36),))]
CONTROLLERS = (BasisController, ChunkedController, CoordinateController, ExpertsController, FlatController)


class OfOneInput(nn.Module):
    """The codes of one layer's own input."""

    def __init__(self):
        super().__init__()
        self.encoder, self.out_dim = OwnInputContext(1), 1
        self.encoder.bind({"conv": (2, 1)})

    def forward(self, x):
        return self.encoder("conv", x)


class OfArchitectures(nn.Module):
    """The codes of architectures of eight choices of two, by number."""

    def __init__(self):
        super().__init__()
        self.encoder, self.out_dim = ArchitectureEncoder(2), 2
        self.encoder.bind({f"choice{number}": 2 for number in range(8)})

    def forward(self, numbers):
        def shares(number):
            return lambda label: F.one_hot((number >> int(label[-1])) & 1, 2).float()

        return torch.stack([self.encoder(shares(number)) for number in numbers])


class OfIds(nn.Module):
    """A number for each id, as users write."""

    def __init__(self):
        super().__init__()
        self.table, self.out_dim = nn.Embedding(200, 1), 1

    def forward(self, ids):
        return self.table(ids)


ENCODERS = {
    "a scalar": (lambda: VectorContext(1, 1), (1,)),
    "a vector, to one number": (lambda: VectorContext(4, 1), (4,)),
    "a vector, to two": (lambda: VectorContext(4, 2), (4,)),
    "a sequence": (lambda: SequenceContext(1, 1), (4, 1)),
    "a map": (lambda: FeatureMapContext(1, 1), (1, 8, 8)),
    "a constant map": (lambda: FeatureMapContext(1, 1), (1, 1, 1)),
    "own input": (OfOneInput, (2, 4, 4)),
    "ids": (OfIds, None),
    "architectures": (OfArchitectures, None),
}


def contexts_of(name):
    shape = ENCODERS[name][1]
    if shape is None:
        return torch.randperm(200 if name == "ids" else 256)[:200]
    drawn = torch.randn(200, *shape)
    return drawn.expand(-1, -1, 8, 8) if name == "a constant map" else drawn


def different(weights):
    """Return how many sets differ from all others counted, by more than a thousandth of their largest value."""
    distance, largest = (weights[:, None] - weights).abs().amax(-1), weights.abs().amax(-1)
    alike = distance <= 1e-3 * torch.maximum(largest[:, None], largest)
    kept = []
    for row in range(len(weights)):
        if not alike[row, kept].any():
            kept.append(row)
    return len(kept)


@pytest.mark.whole
@each_once(name=ENCODERS, encoding=["layer_norm", "magnitude_invariant"], otherwise="slow")
@torch.no_grad()
def test_two_hundred_contexts_make_as_many_weights(name, encoding):
    """A LayerNorm over two values is a sign: there was one set of weights for all in two of five seeds."""
    for scale in (1, 10, 100) if ENCODERS[name][1] else (1,):
        torch.manual_seed(1)
        encoder, contexts = ENCODERS[name][0](), scale * contexts_of(name)
        for batch in contexts.split(40) * (10 if name in ("own input", "a map", "a constant map") else 1):
            encoder(batch)
        codes = encoder.eval()(contexts)
        torch.testing.assert_close(encoder(contexts[7:8]), codes[7:8], rtol=1e-4, atol=1e-5)  # alone as in a batch
        for make in CONTROLLERS:
            controller = make(encoding=encoding)
            controller.architecture_dim = 2 if name == "architectures" else 0
            controller.bind(SITES, encoder.out_dim)
            assert different(controller.generate(SITES, codes)[0]) >= 150, (make, scale)


@pytest.mark.parametrize("make", CONTROLLERS)
@torch.no_grad()
def test_a_scalar_that_doubles_makes_other_weights(make):
    """From 100 to 200 weights changed by 0.4 %."""
    torch.manual_seed(0)
    encoder, controller = VectorContext(1, 16), make()
    controller.bind(SITES, 16)
    encoder(100 + 100 * torch.rand(50, 1))
    first, second = controller.generate(SITES, encoder.eval()(torch.tensor([[100.0], [200.0]])))[0]
    assert (first - second).norm() > 0.2 * first.norm()


# Statistics


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_statistics_are_those_of_all_that_was_seen(sizes, seed):
    values = 50 + 7 * torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed))
    standardise = Gathered(3)
    for batch in values.split(sizes):
        standardise(batch)
    var, mean = torch.var_mean(values, 0, correction=0)
    torch.testing.assert_close(standardise.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(standardise.var, var, rtol=1e-3, atol=1e-3)
    assert standardise.count == len(values)


def test_what_is_not_finite_or_never_varied_does_no_harm():
    standardise = Gathered(2)
    standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    standardise(torch.tensor([[torch.nan, 5.0]]))
    standardise(torch.empty(0, 2))
    assert standardise.eval()(torch.tensor([[4.0, 6.0]])).tolist() == [[2.0, 1.0]]


def test_statistics_stay_in_evaluation_and_where_a_backward_runs_a_forward_again():
    standardise, x = Gathered(1), torch.randn(4, 1, requires_grad=True)
    checkpoint(lambda x: standardise(x) ** 2, x, use_reentrant=True).sum().backward()
    assert standardise.count == 4
    standardise.eval()(10 * x)
    assert standardise.count == 4


def test_a_batch_of_one_counts_in_the_statistics_of_own_inputs():
    """It left no trace, so that a network trained with batches of one never gathered any."""
    torch.manual_seed(0)
    standardise = Standardise(2)
    for _ in range(400):
        standardise(torch.tensor([[5.0, -1.0]]) + torch.tensor([[2.0, 0.5]]) * torch.randn(1, 2))
    torch.testing.assert_close(standardise.running_mean, torch.tensor([5.0, -1.0]), rtol=0.3, atol=0.3)
    torch.testing.assert_close(standardise.running_var, torch.tensor([4.0, 0.25]), rtol=0.6, atol=0.1)


@pytest.mark.parametrize("make", [lambda: VectorContext(3, 2), lambda: SequenceContext(3, 4)])
def test_a_state_of_before_is_read_as_an_encoder_that_does_not_standardise(make):
    torch.manual_seed(0)
    encoder, shape = make(), (5, 3) if isinstance(make(), VectorContext) else (5, 2, 3)
    state = {name: one for name, one in encoder.state_dict().items() if name.split(".")[0] in ("mlp", "gru")}
    encoder(100 * torch.randn(shape))
    encoder.load_state_dict(state)
    x = 30 * torch.randn(shape)
    expected = encoder.mlp(x) if isinstance(encoder, VectorContext) else encoder.gru(x)[1][-1]
    torch.testing.assert_close(encoder.train()(x), expected, rtol=1e-4, atol=1e-4)


# Codes


@given(st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_code_can_be_told_from_what_a_controller_sees_of_it(dim, seed):
    """From its direction, its mean over its size, and the logarithm of that."""
    code = 10 * torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    seen = CodeInput(dim)(code)
    size = (2 * seen[dim + 1]).exp()
    mean, rms = seen[dim] * size, size - 0.1
    found = mean + seen[:dim] * (rms.square() - mean.square()).clamp(min=0).sqrt()
    torch.testing.assert_close(found, code, rtol=0.02, atol=0.02)


def test_neither_part_of_a_code_drowns_the_other_and_each_keeps_its_size():
    see = CodeInput(5, architecture=2)
    code = torch.tensor([1000.0, 2000.0, -500.0, 0.1, 0.3])
    both = see(code)
    assert both[:3].square().mean() == pytest.approx(both[3:5].square().mean().item(), rel=0.01)
    doubled = see(torch.cat([code[:3], 2 * code[3:]]))
    assert (doubled - both).norm() > 0.1 and (see(torch.cat([2 * code[:3], code[3:]])) - both).norm() > 0.3


def test_codes_in_half_precision_stay_finite():
    assert CodeInput(3)(torch.full((2, 3), 3e4, dtype=torch.float16)).isfinite().all()
