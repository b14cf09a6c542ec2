"""What a training step costs, told before one is run: against torch's own counters on the step itself."""

from __future__ import annotations

import copy

import pytest
import torch
from spaces import CHANNELS, Everything, OneChoice
from torch import nn

from nni_dynconv import (
    BasisController,
    DynamicWeightMutator,
    ExpertsController,
    FeatureMapContext,
    OwnInputContext,
    RandomSampler,
    VectorContext,
    lift,
)
from nni_dynconv.cost import multiply_adds
from nni_dynconv.cost.steps import machine
from nni_dynconv.cost.steps.estimating import Share, StepCost
from nni_dynconv.errors import ConfigError, SampleError

SAMPLE = {"op": "3x3"}


def mutator_of(space=None, **options):
    options = {"context": VectorContext(3, dim=8), "sampler": RandomSampler(seed=0), **options}
    return DynamicWeightMutator(OneChoice() if space is None else space, **options)


def inputs(batch=4):
    return torch.randn(batch, 1, 8, 8), torch.randn(batch, 3)


def measured_peak(step):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    return most


class Mixer(nn.Module):
    """A network of a user: two branches, a product, a transposed convolution; two inputs and two outputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(2, 16, 5, padding=2, groups=2)
        self.norm, self.up = nn.BatchNorm2d(16), nn.ConvTranspose2d(16, 3, 2, 2)

    def forward(self, x, mask):
        y = self.norm(self.left(x) * self.right(x)).relu() * mask
        return {"image": self.up(y), "mean": y.mean((2, 3))}


class ByValues(nn.Module):
    """Decides by values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        y = self.conv(x)
        return y * 2 if float(x.sum()) > 0 else y


class TestWork:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"base": "learned", "delta": "low_rank", "rank": 1}, {"base": "learned", "delta": "scale"},
         {"controller": ExpertsController(experts=2)}, {"controller": BasisController(basis=2)}],
        ids=["full", "low rank", "scale", "experts", "basis"],
    )  # fmt: skip
    def test_multiply_adds_are_those_that_torch_counts_in_a_forward(self, settings):
        mutator, (x, context) = mutator_of(**settings), inputs()
        cost, network = mutator.cost(SAMPLE, x, context), mutator.freeze(SAMPLE).train()
        assert cost.multiply_adds * len(x) == pytest.approx(multiply_adds(lambda: network(x, context)), rel=0.05)

    def test_the_static_part_is_that_of_the_ordinary_network(self):
        mutator, (x, context) = mutator_of(), inputs()
        pixels = 8 * 8 * CHANNELS
        assert mutator.cost(SAMPLE, x, context).static.multiply_adds == pixels * (1 + 9 * CHANNELS)

    def test_a_context_that_all_share_costs_one_making(self):
        mutator, (x, context) = mutator_of(), inputs(8)
        each = mutator.cost(SAMPLE, x, context).making.multiply_adds
        index = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1])
        one = mutator.cost(SAMPLE, x, context[:1]).making.multiply_adds
        two = mutator.cost(SAMPLE, x, context=context[:2], index=index).making.multiply_adds
        assert one < two < each / 3

    def test_an_architecture_without_generated_weights_makes_none(self):
        cost = mutator_of().cost({"op": "skip"}, *inputs())
        assert cost.making.multiply_adds == 3 * 8 + 8 * 8  # the context is encoded all the same
        assert cost.using.multiply_adds == 0

    def test_the_peak_is_that_of_the_step(self):
        layers = [nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)]
        mutator = lift(nn.Sequential(*layers), base="none").mutator(context=VectorContext(3, dim=8))
        x, context = torch.randn(16, 3, 32, 32), torch.randn(16, 3)
        network = mutator.freeze({}).train()

        def step():
            network(x, context).sum().backward()

        step()
        network.zero_grad()
        assert mutator.cost({}, x, context).memory == pytest.approx(measured_peak(step), rel=0.2)

    def test_a_weight_that_is_formed_again_in_the_backward_is_not_held(self):
        lifted = lift(nn.Sequential(*[nn.Conv2d(32, 32, 3, padding=1) for _ in range(6)]), base="none")
        mutator = lifted.mutator(controller=ExpertsController(experts=2), context=VectorContext(3, dim=8))
        x, context = torch.randn(64, 32, 6, 6), torch.randn(64, 3)
        formed = 64 * 32 * 32 * 9 * 4  # bytes of one site's weights, of six
        assert mutator.cost({}, x, context).memory < 5 * formed


class TestNetworks:
    @pytest.mark.whole
    def test_any_architecture_of_a_space_has_a_cost(self):
        mutator = mutator_of(Everything(), context=VectorContext(3, dim=8))
        for _ in range(2):
            assert mutator.cost(mutator.reset(), *inputs()).seconds > 0

    @pytest.mark.whole
    def test_a_lifted_network_of_several_inputs_and_outputs(self):
        mutator = lift(Mixer(), base="learned").mutator(context=VectorContext(3, dim=8), delta="low_rank", rank=2)
        cost = mutator.cost({}, torch.randn(4, 2, 6, 6), torch.ones(4, 1, 6, 6), context=torch.randn(4, 3))
        assert cost.making.multiply_adds > 0
        assert cost.static.multiply_adds == 36 * (16 * 2 * 9 + 16 * 25 + 16 * 3 * 4)

    @pytest.mark.parametrize("context", [OwnInputContext(dim=4), FeatureMapContext(1, dim=4)], ids=["own", "map"])
    def test_other_contexts(self, context):
        mutator, (x, _) = mutator_of(context=context), inputs()
        given = () if isinstance(context, OwnInputContext) else (x,)
        assert mutator.cost(SAMPLE, x, *given).making.multiply_adds > 0

    def test_a_frozen_network_costs_what_its_mutator_says(self):
        mutator, (x, context) = mutator_of(), inputs()
        frozen, ours = mutator.freeze(SAMPLE).cost(x, context), mutator.cost(SAMPLE, x, context)
        assert (frozen.multiply_adds, frozen.memory) == (ours.multiply_adds, ours.memory)

    def test_a_network_that_decides_by_values_is_run_and_says_so(self):
        mutator = lift(ByValues()).mutator(context=VectorContext(3, dim=8))
        cost = mutator.cost({}, *inputs())
        assert cost.ran
        assert not mutator_of().cost(SAMPLE, *inputs()).ran

    def test_nothing_of_the_network_changes_and_no_random_number_is_drawn(self):
        mutator = mutator_of(Everything())
        sample, before = mutator.export(), copy.deepcopy(mutator.state_dict())
        given = inputs()
        state = torch.get_rng_state()
        mutator.cost(sample, *given)
        assert torch.equal(state, torch.get_rng_state())
        after = mutator.state_dict()
        assert all(torch.equal(one, after[name]) for name, one in before.items() if torch.is_tensor(one))
        assert all(one.grad is None for one in mutator.parameters())

    def test_what_was_measured_once_is_known(self):
        mutator, given = mutator_of(), inputs()
        mutator.cost(SAMPLE, *given)
        assert mutator.cost(SAMPLE, *given).measuring == 0
        assert machine.spent > 0


class TestWords:
    def test_the_parts_add_up(self):
        parts = Share(1.0, 10, 100), Share(0.5, 5, 20), Share(-0.1, 1, 3)
        cost = StepCost(8, *parts, measuring=0.0)
        assert (cost.seconds, cost.multiply_adds, cost.memory, cost.over_static) == (1.4, 16, 123, 1.4)
        assert not cost.is_dear

    def test_it_is_printed_by_part(self):
        cost = StepCost(8, Share(0.1, 1000, 10**6), Share(0.05, 500, 0), Share(0.0, 0, 0), measuring=0.0)
        lines = str(cost).splitlines()
        assert lines[0] == "a training step of 8 samples: 150 ms, 1.50x of static; 1.0 MB; 1,500 multiply-adds a sample"
        assert [line.split()[0] for line in lines[1:]] == ["static", "making", "using"]

    def test_it_warns_with_a_cheaper_setting_where_making_costs_more_than_using(self):
        lifted = lift(nn.Sequential(nn.Conv2d(48, 48, 3)), base="none")
        mutator = lifted.mutator(context=VectorContext(3, dim=8))
        x, context = torch.randn(16, 48, 3, 3), torch.randn(16, 3)  # a single place for each kernel
        with pytest.warns(UserWarning, match=r"Making weights takes .* With `base='learned', delta='.*` it would take"):
            cost = mutator.cost({}, x, context)
        assert cost.is_dear

    def test_it_does_not_warn_where_making_is_cheap(self, recwarn):
        lifted = lift(nn.Sequential(nn.Conv2d(8, 8, 3)), base="learned")
        mutator = lifted.mutator(context=VectorContext(3, dim=8), delta="scale")
        assert mutator.cost({}, torch.randn(32, 8, 64, 64), torch.randn(32, 3)).advice is None
        assert not [one for one in recwarn if "Making weights" in str(one.message)]

    def test_no_tensor_is_refused(self):
        with pytest.raises(ConfigError, match="`cost` needs what the network is called with"):
            mutator_of().cost(SAMPLE)

    def test_a_sample_of_another_space_is_refused(self):
        with pytest.raises(SampleError, match="has no label `stem`"):
            mutator_of().cost({"stem": "a"}, *inputs())
