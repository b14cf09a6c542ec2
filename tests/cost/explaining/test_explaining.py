"""One real step, shared out among its sites: what is told of each, and that nothing is lost or told twice."""

from __future__ import annotations

import copy

import pytest
import torch
from spaces import Everything, OneChoice
from torch import nn

from nni_dynconv import DartsSampler, DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext, lift
from nni_dynconv.cost.explaining import Explanation, SiteTaken
from nni_dynconv.errors import ConfigError, SampleError, ScopeError
from nni_dynconv.functional import noted
from nni_dynconv.ops import DynamicConv2d
from nni_dynconv.settings import Recipe

SAMPLE = {"op": "3x3"}


class Branches(nn.Module):
    """A network of a user: one layer that runs twice, a wide one, one that is kept static."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.wide, self.head = nn.Conv2d(8, 8, 9, padding=4), nn.Linear(8, 3)

    def forward(self, x):
        y = self.first(x)
        y = self.again(self.again(y)).relu() + self.wide(y)
        return self.head(y.mean((2, 3)))


def mutator_of(space=None, **options):
    options = {"context": VectorContext(3, dim=8), "sampler": RandomSampler(seed=0), **options}
    return DynamicWeightMutator(OneChoice() if space is None else space, **options)


def inputs(batch=4, size=8):
    return torch.randn(batch, 1, size, size), torch.randn(batch, 3)


def lifted(**options):
    return lift(Branches(), base="learned").mutator(context=VectorContext(3, dim=8), **options)


class TestSites:
    def test_each_site_that_runs_is_told_in_order_with_its_recipe(self):
        x, context = inputs()
        found = lifted(delta="low_rank", rank=2, per_site={"wide": {"delta": "scale"}}).explain(
            x, context=context, sample={}
        )
        assert [one.site for one in found.sites] == ["first", "again", "wide"]
        assert [one.recipe.delta for one in found.sites] == ["low_rank", "low_rank", "scale"]
        assert [one.runs for one in found.sites] == [1, 2, 1]
        assert found.batch == 4
        assert found.controller == "ChunkedController"

    def test_the_path_is_the_one_that_runs_and_says_why(self):
        x, context = inputs()
        first, again, _ = lifted().explain(x, context=context, sample={}).sites
        assert again.path == "matmul"
        assert again.why == "a 1x1 kernel only mixes channels"
        assert first.path and first.why

    def test_parts_tell_both_choices(self):
        x, context = inputs(size=16)
        mutator = lift(Branches(), base="learned").mutator(context=VectorContext(3, dim=8), delta="scale")
        wide = mutator.explain(x, context=context, sample={}).sites[-1]
        assert wide.path.split(" > ")[0] == "applied"
        assert len(wide.why.split("; ")) == 2

    def test_static_sites_make_nothing(self):
        x, context = inputs()
        found = lifted(per_site={"wide": {"delta": "none"}}).explain(x, context=context, sample={})
        assert found.sites[-1].making == 0
        assert found.sites[0].making > 0

    def test_no_time_is_lost_and_none_told_twice(self):
        x, context = inputs()
        found = lifted().explain(x, context=context, sample={})
        parts = found.encoding + found.elsewhere + sum(one.making + one.using for one in found.sites)
        assert found.seconds == pytest.approx(parts)
        assert sum(found.share(one.seconds) for one in found.sites) <= 1
        assert all(one.using > 0 and one.making > 0 for one in found.sites)

    def test_the_backward_is_its_sites(self):
        """The wide layer of a large image takes most of the step, more than half of that in the backward."""
        x, context = inputs(batch=8, size=32)
        found = lifted(delta="none", controller=None).explain(x, context=context, sample={})
        most = max(found.sites, key=lambda one: one.seconds)
        assert most.site == "wide"
        assert found.share(most.seconds) > found.share(found.elsewhere)

    def test_memory_is_at_least_what_comes_out(self):
        x, context = inputs(batch=8, size=32)
        found = lifted().explain(x, context=context, sample={})
        assert found.sites[0].memory >= 8 * 8 * 32 * 32 * 4


class TestNetworks:
    def test_the_drawn_architecture_is_explained_and_another_on_request(self):
        mutator, (x, context) = mutator_of(), inputs()
        mutator.sample = {"op": "5x5"}
        assert [one.site for one in mutator.explain(x, context=context).sites] == ["op/5x5"]
        assert [one.site for one in mutator.explain(x, context, sample=SAMPLE).sites] == ["op/3x3"]

    def test_a_sampler_that_mixes_runs_all_candidates(self):
        mutator, (x, context) = mutator_of(sampler=DartsSampler(seed=0)), inputs()
        assert {one.site for one in mutator.explain(x, context=context).sites} == {"op/3x3", "op/5x5"}

    def test_a_space_of_everything(self):
        mutator = mutator_of(Everything())
        sample = mutator.reset()
        found = mutator.explain(*inputs())
        assert {one.site for one in found.sites} == {site.name for site in mutator.plan(sample).sites}

    def test_weights_from_each_layers_own_input(self):
        mutator, (x, _) = mutator_of(context=OwnInputContext(dim=4)), inputs()
        (one,) = mutator.explain(x, sample=SAMPLE).sites
        assert one.making > 0

    def test_a_frozen_network(self):
        network, (x, context) = mutator_of().freeze(SAMPLE), inputs()
        assert [one.site for one in network.explain(x, context).sites] == ["op/3x3"]

    def test_nothing_changes(self):
        mutator, given = lifted(), inputs()
        before, state = copy.deepcopy(mutator.state_dict()), torch.get_rng_state()
        mutator.explain(*given, sample={})
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(one, mutator.state_dict()[name]) for name, one in before.items() if torch.is_tensor(one))
        assert all(one.grad is None for one in mutator.parameters())

    def test_nothing_drawn_is_refused(self):
        with pytest.raises(ScopeError, match="No architecture is drawn yet"):
            mutator_of().explain(*inputs())

    def test_another_spaces_sample_is_refused(self):
        with pytest.raises(SampleError, match="has no label"):
            mutator_of().explain(*inputs(), sample={"stem": 1})

    def test_what_cannot_be_differentiated_is_refused(self):
        class Flat(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(1, 2, 1)

            def forward(self, x):
                return self.conv(x).argmax(1)

        with pytest.raises(ConfigError, match="nothing that comes out of the network has a gradient"):
            lift(Flat()).mutator().explain(torch.randn(2, 1, 3, 3), sample={})


class TestTable:
    FOUND = Explanation(
        8,
        "ChunkedController",
        (
            SiteTaken("stem", Recipe("learned", "low_rank", 4), "formed > compiled", "thin", 2, 0.01, 0.03, 2_000_000),
            SiteTaken("norm", Recipe("none", "full"), "", "", 1, 0.02, 0.01, 0),
        ),
        encoding=0.01,
        elsewhere=0.02,
    )  # fmt: skip

    def test_it_has_a_row_for_each_site_and_two_for_the_rest(self):
        lines = str(self.FOUND).splitlines()
        assert lines[0] == "a training step of 8 samples: 100 ms, of which making weights (ChunkedController) takes 40%"
        rows = [line.split() for line in lines if " ms " in line and "step" not in line]
        assert [row[0] for row in rows] == ["stem", "norm", "(context)", "(elsewhere)"]
        assert rows[0][:10] == ["stem", "x2", "learned", "low_rank", "4", "formed", ">", "compiled", "10.00", "ms"]
        assert "40%" in rows[0] and "2.0" in rows[0]

    def test_a_network_without_a_controller_says_so(self):
        assert "no controller" in str(Explanation(1, None, (), 0.0, 0.0))


def test_calls_are_noted_inside_the_block_only():
    op, x = DynamicConv2d(2, 3, 1), torch.randn(4, 2, 5, 5)
    weights = torch.randn(4, op.num_generated)
    with noted() as choices:
        op(x, weights)
    op(x, weights)
    assert [one.path for one in choices] == ["matmul"]
