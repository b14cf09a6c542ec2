"""Sites are as independent at the start as layers that are initialised one by one, and stay what they are."""

from __future__ import annotations

import copy
import math

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from benchmarks.quality.initialisation import CONTROLLERS
from nni_dynconv import DynamicWeightMutator, VectorContext, ops
from nni_dynconv.generation.controllers import (
    BasisController,
    ChunkedController,
    CoordinateController,
    LowRankController,
)
from nni_dynconv.generation.controllers.signs import Signs, random_signs
from nni_dynconv.sites.spec import Site, WeightSpec

RECIPES = (("none", "full"), ("none", "low_rank"), ("learned", "full"), ("learned", "low_rank"), ("learned", "scale"))


class Residual(ModelSpace):
    """Blocks of one shape, without norm."""

    def __init__(self, blocks, channels):
        super().__init__()
        self.blocks = nn.ModuleList(ops.DynamicConv2d(channels, channels, 3, padding=1) for _ in range(blocks))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x.relu())
        return x


def mutator_of(name, blocks, channels, seed=0, **recipe):
    torch.manual_seed(seed)
    return DynamicWeightMutator(
        Residual(blocks, channels), controller=CONTROLLERS[name](), context=VectorContext(4, 8), **recipe
    )


@pytest.mark.parametrize("name", [one for one in CONTROLLERS if one != "flat"])  # which would have ten million weights
@pytest.mark.parametrize(("base", "delta"), RECIPES)
@torch.no_grad()
def test_sites_of_one_shape_are_uncorrelated(name, base, delta):
    """Their correlation was 0.76 (chunked), 0.59 (low rank) and 0.76 (coordinate)."""
    mutator = mutator_of(name, 4, 48, base=base, delta=delta)
    made = mutator.source.make(list(mutator.source.sites.values()), mutator.context(torch.randn(1, 4))[0])
    correlations = torch.corrcoef(torch.stack([one["weight"].flatten() for one in made]))
    between = correlations[~torch.eye(len(made), dtype=torch.bool)]
    assert between.abs().mean() < 0.03 and between.abs().max() < 0.1, between


@pytest.mark.parametrize("name", ["chunked", "low_rank", "coordinate, centre", "experts, linear"])
@pytest.mark.parametrize("base", ["none", "learned"])
@torch.no_grad()
def test_a_residual_network_grows_as_one_of_independent_layers(name, base):
    """Through 16 blocks it grew to 651 (chunked) and 42 (a base with a delta) times its size, where 16 is usual."""
    logs, std = [], (1.09 if base == "learned" else 1.0) ** 0.5 / (9 * 32) ** 0.5  # a delta of 0.3 beside the base
    for seed in range(8):  # one network is up to five times as large as another
        mutator = mutator_of(name, 16, 32, seed, base=base)
        x = y = torch.randn(4, 32, 6, 6)
        for _ in range(16):
            layer = nn.Conv2d(32, 32, 3, padding=1)
            nn.init.normal_(layer.weight, std=std)
            y = y + layer(y.relu())
        ours = mutator(x, context=torch.randn(4, 4))
        logs.append(math.log(ours.square().mean() / y.square().mean()) / 2)
    assert 0.5 < math.exp(sum(logs) / len(logs)) < 2


# The signs that do it


def sites_of(count, channels=4):
    specs = (WeightSpec("weight", (channels, 8, 3, 3), 72), WeightSpec("bias", (channels,), 72, "bias"))
    return [Site(f"site{number}", "DynamicConv2d", specs) for number in range(count)]


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_no_two_positions_of_a_site_and_hardly_two_sites_share_a_row(counts):
    lines = Signs(counts, dim=1, before=0).lines.split(counts)
    assert all(len(one.unique()) == len(one) for one in lines)
    for number, one in enumerate(lines):
        for other in lines[:number]:
            shorter = min(len(one), len(other))
            assert (one[:shorter] == other[:shorter]).sum() <= 1


@pytest.mark.parametrize("make", [ChunkedController, LowRankController, CoordinateController, BasisController])
@torch.no_grad()
def test_sites_that_come_later_leave_the_signs_of_the_others(make):
    torch.manual_seed(0)
    few, many = make(), make()
    few.bind(sites_of(3), None)
    many.bind(sites_of(200), None)
    state = many.state_dict()
    for name, own in few.state_dict().items():
        state[name][tuple(map(slice, own.shape))] = own
    many.load_state_dict(state)
    for ours, theirs in zip(many.generate(sites_of(3), None), few.generate(sites_of(3), None), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("make", [ChunkedController, CoordinateController])
def test_signs_are_kept_by_copies_and_by_what_is_selected(make):
    sites, controller = sites_of(5), make()
    controller.bind(sites, None)
    expected = controller.generate(sites[3:4], None)[0]
    copied = copy.deepcopy(controller)
    copied.select(sites[2:4])
    torch.testing.assert_close(copied.generate(sites[3:4], None)[0], expected)
    alone = make()
    alone.bind(sites[3:4], None)
    copied.select(sites[3:4])
    alone.load_state_dict(copied.state_dict())
    torch.testing.assert_close(alone.generate(sites[3:4], None)[0], expected)


def test_a_state_without_places_has_the_signs_of_then():
    signs = Signs([3, 2], 16, before=12)
    signs.load_state_dict({})
    first, second = signs.rows([(0, 0, 2)]), signs.rows([(1, 0, 2)])
    assert torch.equal(first, second) and torch.equal(first[:, :12], random_signs(2, 12)) and (first[:, 12:] == 1).all()
    assert torch.equal(signs.rows([(0, 2, 1)])[:, :12], random_signs(3, 12)[2:])
