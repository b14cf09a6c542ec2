"""Profilers: each formula against torch's own counter and against the networks that come out of a search."""

from __future__ import annotations

import copy

import pytest
import torch
from spaces import CHANNELS, OneChoice, conv

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from nni.nas.oneshot.pytorch.profiler import RangeProfilerFilter, SampleProfilerPenalty
from nni.nas.profiler.pytorch.flops import FlopsProfiler
from nni.nas.profiler.pytorch.utils import ShapeTensor
from nni.nas.profiler.pytorch.utils.shape_formula import find_shape_inference_formula
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_dynconv import (
    ChunkedController,
    DynamicOp,
    DynamicWeightMutator,
    LowRankController,
    RandomSampler,
    VectorContext,
    ops,
)
from nni_dynconv.cost.profiler import FORMULAS, DynamicFlopsProfiler, DynamicNumParamsProfiler
from nni_dynconv.errors import ConfigError, SpaceError
from nni_dynconv.functional import portable

LINEAR_ONLY = {"count_bias": False, "count_normalization": False, "count_activation": False}

OPS = [
    (ops.DynamicConv1d(4, 6, 3, padding=1, groups=2), (4, 9)),
    (ops.DynamicConv2d(4, 6, (3, 5), stride=2, dilation=(2, 1), bias=False), (4, 9, 9)),
    (ops.DynamicConv2d(4, 6, 4, padding="same"), (4, 9, 9)),
    (ops.DynamicConv2d(4, 6, 3, padding="valid"), (4, 9, 9)),
    (ops.DynamicPatchConv2d(4, 6, 3, grid=(2, 3), stride=2, padding=1), (4, 9, 9)),
    (ops.DynamicConv3d(2, 3, 3, padding=(1, 0, 1)), (2, 5, 5, 5)),
    (ops.DynamicConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 5)),
    (ops.DynamicConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 6)),
    (ops.DynamicConvTranspose3d(2, 3, 3, dilation=2), (2, 3, 3, 3)),
    (ops.DynamicLinear(5, 3), (4, 5)),
    (ops.DynamicSepConv(4, 6, 3, stride=2), (4, 9, 9)),
    (ops.DynamicDilConv(4, 6, 5, norm=None), (4, 9, 9)),
    *((getattr(ops, f"DynamicBatchNorm{rank}d")(4), (4, 6, 6, 6)[: rank + 1]) for rank in (1, 2, 3)),
    *((getattr(ops, f"DynamicInstanceNorm{rank}d")(4), (4, 6, 6, 6)[: rank + 1]) for rank in (1, 2, 3)),
    (ops.DynamicGroupNorm(2, 4), (4, 6)),
    (ops.DynamicLayerNorm(6), (4, 6)),
]


class Alone(ModelSpace):
    def __init__(self, op):
        super().__init__()
        self.op = op

    def forward(self, x):
        return self.op(x)


def macs(run):
    """Multiply-adds as torch counts them: of convolutions and matrix products, without biases."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 2


def test_every_op_has_its_formulas_and_is_tried():
    assert {type(op) for op, _ in OPS} == set(FORMULAS)
    assert {cls.__name__ for cls in FORMULAS} == set(ops.__all__) - {"DynamicOp"}


@pytest.mark.parametrize(("op", "shape"), OPS, ids=lambda one: str(one).splitlines()[0][:30])
def test_a_formula_gives_the_shape_and_the_multiply_adds_of_the_op(op, shape):
    x = torch.zeros(1, *shape)
    weights = {spec.name: torch.zeros(spec.shape) for spec in op.weight_specs()}
    formula = find_shape_inference_formula(op)
    assert tuple(formula(op, ShapeTensor(x, True))) == tuple(op(x, weights).shape)
    counted = DynamicFlopsProfiler(Alone(op), x, contexts_per_sample=0, **LINEAR_ONLY).profile({})
    assert counted == macs(lambda: static(op, x, weights))


def static(op, x, weights):
    """Run torch's own layer, whose kernels its counter knows."""
    if isinstance(op, ops.DynamicSepConv):
        options = op.stride, op.padding, op.dilation
        x = nn.functional.conv2d(x, weights["depthwise"], None, *options, groups=op.in_channels)
        nn.functional.conv2d(x, weights["pointwise"])
    elif hasattr(op, "kernel_size"):
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "bias", "output_padding")
        options = {name: getattr(op, name) for name in names if hasattr(op, name)}
        getattr(nn, type(op).__name__.removeprefix("Dynamic").replace("Patch", ""))(
            op.in_channels, op.out_channels, **options
        )(x)
    else:
        op(x, weights)


def test_biases_normalisations_and_activations_are_counted_as_nni_counts_them():
    x = torch.zeros(1, 4, 9, 9)

    class Static(ModelSpace):
        def __init__(self):
            super().__init__()
            depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
            self.op = nn.Sequential(nn.ReLU(), depthwise, nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6))
            self.conv, self.norm, self.head = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.norm(self.conv(self.op(x))).mean((2, 3)))

    class Dynamic(Static):
        def __init__(self):
            super().__init__()
            self.op = ops.DynamicSepConv(4, 6, 3)
            self.conv, self.norm = ops.DynamicConv2d(6, 6, 3), ops.DynamicBatchNorm2d(6)
            self.head = ops.DynamicLinear(6, 2)

    counted = DynamicFlopsProfiler(Dynamic(), x, contexts_per_sample=0).profile({})
    assert counted == FlopsProfiler(Static(), x).profile({})


class Widths(ModelSpace):
    """Choices among the arguments of dynamic ops, with expressions, a depth, a choice of layers."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [2, 4])
        self.stem = ops.DynamicConv2d(1, width, nni.choice("kernel", [1, 3]))
        self.middle = ops.DynamicConv2d(width, width * 2, 3, groups=width, stride=nni.choice("stride", [1, 2]))
        self.join = ops.DynamicConv2d(width * 2, CHANNELS, 1)
        self.deep = Repeat(
            lambda index: LayerChoice([conv(3), conv(1), nn.AvgPool2d(3, 1, 1)], label=f"layer{index}"),
            (1, 2),
            label="depth",
        )
        self.head = ops.DynamicLinear(CHANNELS, 2)

    def forward(self, x):
        return self.head(self.deep(self.join(self.middle(self.stem(x)))).mean((2, 3)))


def samples(space, count=12):
    sampler = RandomSampler(seed=0)
    mutator = DynamicWeightMutator(copy.deepcopy(space), sampler=sampler, base="learned", context=VectorContext(3, 4))
    for _ in range(count):
        yield mutator.eval(), mutator.reset()


def test_an_expression_of_choices_gives_each_architectures_own_multiply_adds():
    x, space = torch.zeros(1, 1, 9, 9), Widths()
    profiler = DynamicFlopsProfiler(space, x, contexts_per_sample=0, **LINEAR_ONLY)
    seen = set()
    for mutator, sample in samples(space):
        network = mutator.freeze(sample)
        counted = macs(lambda: network(x, torch.zeros(1, 3)))  # noqa: B023 (run at once)
        generated = macs(lambda: network.source.make(list(network.source.sites.values()), torch.zeros(4)))  # noqa: B023
        encoded = macs(lambda: network.source.encoder(torch.zeros(1, 3)))  # noqa: B023
        assert profiler.profile(sample) == counted - generated - encoded
        seen.add(counted)
    assert len(seen) > 3


@pytest.mark.parametrize("base", ["none", "learned"])
@pytest.mark.parametrize("context", [None, VectorContext(3, 4)])
def test_stored_parameters_are_those_of_the_frozen_network(base, context):
    space = Widths()
    options = {"base": base, "controller": ChunkedController(chunk=8, hidden=16), "context": context}
    profiler = DynamicNumParamsProfiler(space, torch.zeros(1, 1, 9, 9), **options)
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(seed=0), **options)
    for _ in range(8):
        network = mutator.freeze(mutator.reset())
        assert profiler.profile(network.architecture) == sum(one.numel() for one in network.parameters())


def test_making_weights_costs_what_the_controller_computes():
    x, space = torch.zeros(1, 1, 6, 6), Alone(ops.DynamicConv2d(1, 40, 3))
    example = torch.zeros(1, 3)
    own = {"context": VectorContext(3, 4), "example": example, "base": "learned", **LINEAR_ONLY}
    costs = [DynamicFlopsProfiler(space, x, contexts_per_sample=n, **own).profile({}) for n in (0, 1, 1 / 64)]
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(), context=VectorContext(3, 4), base="learned")
    mutator.reset()
    network = mutator.freeze({})
    made = macs(lambda: network(x, example)) - costs[0]
    assert costs[1] - costs[0] == made + 400  # a multiply-add for each value: base + scale * delta
    assert costs[2] - costs[0] == pytest.approx((made + 400) / 64)


def test_making_weights_is_counted_site_by_site_and_so_a_little_high():
    x, space = torch.zeros(1, 1, 9, 9), Widths()
    with_making, without = (
        DynamicFlopsProfiler(space, x, contexts_per_sample=n, context=VectorContext(3, 4), **LINEAR_ONLY)
        for n in (1, 0)
    )
    for mutator, sample in samples(space, 4):
        source = mutator.freeze(sample).source
        making = macs(lambda: source.make(list(source.sites.values()), torch.zeros(4)))  # noqa: B023 (run at once)
        counted = with_making.profile(sample) - without.profile(sample)
        assert making <= counted <= 1.3 * making + mutator.plan(sample).num_generated


def test_profiling_leaves_the_space_as_it_was():
    space = Alone(ops.DynamicSepConv(4, 6, 3))
    before = copy.deepcopy(space.state_dict())
    controller = ChunkedController()
    DynamicFlopsProfiler(space, torch.randn(1, 4, 9, 9), controller=controller)
    torch.testing.assert_close(space.state_dict(), before)
    assert space.training and space.op.training and not controller.bound
    assert "forward" not in vars(space.op)


def test_nnis_filters_and_penalties_take_it():
    x, space = torch.zeros(1, 1, 6, 6), OneChoice()
    profiler = DynamicFlopsProfiler(space, x)
    small, large = (profiler.profile({"op": name}) for name in ("skip", "5x5"))
    assert small < profiler.profile({"op": "3x3"}) < large
    keep = RangeProfilerFilter(profiler, 0, small)
    assert keep({"op": "skip"}) and not keep({"op": "5x5"})
    penalty = SampleProfilerPenalty(profiler, baseline=small, scale=1.0)
    assert penalty(torch.tensor(1.0), {"op": "5x5"})[0] > penalty(torch.tensor(1.0), {"op": "skip"})[0]


def test_an_op_derived_from_one_of_ours_is_counted_as_that_one():
    class Own(ops.DynamicConv2d):
        pass

    x = torch.zeros(1, 4, 6, 6)
    counted = [DynamicFlopsProfiler(Alone(op), x).profile({}) for op in (Own(4, 4, 3), ops.DynamicConv2d(4, 4, 3))]
    assert counted[0] == counted[1]


class Foreign(DynamicOp):
    """An op of another kind."""

    def weight_specs(self):
        return ops.DynamicLinear(2, 2).weight_specs()

    def compute(self, x, weights):
        return x


def test_what_cannot_be_profiled_is_refused_in_words():
    x = torch.zeros(1, 4, 6, 6)
    with pytest.raises(SpaceError, match="Foreign has no formula for its shape and multiply-adds. Give it one"):
        DynamicFlopsProfiler(Alone(Foreign()), x)
    with pytest.raises(SpaceError, match="Alone has no dynamic op: NNI's own profilers serve"):
        DynamicFlopsProfiler(Alone(nn.Identity()), x)
    with pytest.raises(ConfigError, match="Unknown `base` `gven` in the profiler. Did you mean `given`?"):
        DynamicFlopsProfiler(Alone(conv()), x, base="gven")
    space = OneChoice()
    DynamicWeightMutator(space, sampler=RandomSampler())
    with pytest.raises(SpaceError, match="is a supernet already. Make the profiler of the space first"):
        DynamicNumParamsProfiler(space, torch.zeros(1, 1, 6, 6))


LOW_RANK = {
    "delta": lambda: {"delta": "low_rank", "rank": 2, "base": "learned"},
    "controller": lambda: {"controller": LowRankController(rank=2), "base": "none"},
}


@pytest.mark.parametrize("options", LOW_RANK.values(), ids=LOW_RANK)
def test_low_rank_weights_are_counted_as_formed_which_one_sample_runs(options):
    x, example = torch.zeros(1, 32, 6, 6), torch.zeros(1, 3)
    space = Alone(ops.DynamicConv2d(32, 32, 3, bias=False))
    own = {"context": VectorContext(3, 4), "example": example}
    counted = DynamicFlopsProfiler(space, x, **own, **options()).profile({})
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(), context=VectorContext(3, 4), **options())
    mutator.reset()
    network, values = mutator.freeze({}), 32 * 32 * 9  # each is scaled, and its base added, by one more
    assert counted == macs(lambda: network(x, example)) + values
    eight = x.expand(8, -1, -1, -1), example.expand(8, -1)
    with portable():
        formed = macs(lambda: network(*eight))
    assert macs(lambda: network(*eight)) != formed <= 8 * (counted - values)
