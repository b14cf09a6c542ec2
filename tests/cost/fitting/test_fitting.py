"""`delta="auto"`: what is picked keeps the budget, is the richest that does, and is what the network then has."""

from __future__ import annotations

import pytest
import torch
from spaces import Everything, OneChoice, conv
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import (
    ChunkedController,
    Controller,
    DynamicWeightMutator,
    ExpertsController,
    RandomSampler,
    VectorContext,
    lift,
    load,
)
from nni_dynconv.cost.fitting import Fitted, SiteFitted, fitting
from nni_dynconv.cost.steps.pricing import Price, Prices
from nni_dynconv.errors import ConfigError
from nni_dynconv.export import save
from nni_dynconv.settings import Recipe


class Pair(nn.Module):
    """A network of a user: a wide layer over a large image, and one over a single place."""

    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 32, 3)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        y = self.large(x).relu()
        return self.head(self.small(nn.functional.adaptive_avg_pool2d(y, 3)).flatten(1))


class Either(ModelSpace):
    """One choice, so that no architecture has all sites."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.op = LayerChoice({"3x3": conv(3), "5x5": conv(5), "skip": nn.Identity()}, label="op")

    def forward(self, x):
        return self.op(self.stem(x))


class ByValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.conv(x) if float(x.sum()) > 0 else self.conv(-x)


ORDER = ("full", "low_rank 16", "low_rank 8", "low_rank 4", "low_rank 2", "low_rank 1", "scale", "none")


def name_of(recipe):
    return f"low_rank {recipe.rank}" if recipe.delta == "low_rank" else recipe.delta


@pytest.fixture
def told(monkeypatch):
    """Prices that are told, in seconds: the static op is 1, and a recipe as it stands here."""
    added = dict(zip(ORDER, (20.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0), strict=True))

    def of(self, site, recipe, seen):
        return Price(added[name_of(recipe)], 1.0)

    monkeypatch.setattr(Prices, "of", of)
    monkeypatch.setattr(fitting, "_share_of_the_rest", lambda *_: 1.0)
    return added


def example(batch=4):
    return torch.randn(batch, 3, 16, 16), torch.randn(batch, 3)


def fitted(budget=0.5, **options):
    options = {"context": VectorContext(3, dim=8), "delta": "auto", "example": example(), **options}
    return lift(Pair(), where=(nn.Conv2d, nn.Linear), base="learned").mutator(making_budget=budget, **options)


class TestChoice:
    @pytest.mark.parametrize(
        ("budget", "expected"), [(30.0, "full"), (16.0, "low_rank 16"), (5.0, "low_rank 4"), (0.6, "scale")]
    )
    def test_each_site_gets_the_richest_that_fits(self, budget, expected, told):
        assert {name_of(one.recipe) for one in fitted(budget).fitted.sites} == {expected}

    def test_the_static_weights_are_left_where_nothing_fits(self, told, monkeypatch):
        monkeypatch.setattr(fitting, "_spend_the_rest", lambda *_: None)
        mutator = fitted(0.1)
        assert {one.recipe for one in mutator.fitted.sites} == {Recipe("learned", "none", 8)}
        assert mutator.controller is None

    def test_what_others_leave_goes_to_sites_that_are_too_small_for_any_call(self, told):
        sites = {one.site: one for one in fitted(0.1).fitted.sites}
        assert sum(one.price for one in sites.values()) <= 0.1 * 3 + 1

    def test_per_site_overrides(self, told):
        mutator = fitted(5.0, per_site={"head": {"delta": "none"}, "small": {"delta": "low_rank", "rank": 3}})
        assert [one.site for one in mutator.fitted.sites] == ["large"]
        assert mutator.source.recipes["small"] == Recipe("learned", "low_rank", 3)
        assert mutator.source.recipes["head"].delta == "none"

    def test_auto_for_some_sites_only(self, told):
        mutator = fitted(5.0, delta="full", per_site={"small": {"delta": "auto"}})
        assert [(one.site, one.recipe.rank) for one in mutator.fitted.sites] == [("small", 4)]
        assert mutator.source.recipes["large"].delta == "full"

    def test_a_base_that_is_asked_for_stays_and_one_that_is_needed_is_learned(self, told):
        given = lift(Pair(), base="given").mutator(
            context=VectorContext(3, dim=8), delta="auto", making_budget=5.0, example=example()
        )
        assert {one.recipe.base for one in given.fitted.sites} == {"given"}
        space = DynamicWeightMutator(Either(), delta="auto", making_budget=5.0, example=torch.randn(2, 1, 8, 8))
        assert {one.recipe.base for one in space.fitted.sites} == {"learned"}
        rich = DynamicWeightMutator(Either(), delta="auto", making_budget=50.0, example=torch.randn(2, 1, 8, 8))
        assert {one.recipe.base for one in rich.fitted.sites} == {"none"}


class TestEstimate:
    @pytest.mark.whole
    def test_a_layer_over_many_places_gets_more_than_one_over_few(self):
        sites = {one.site: one.recipe for one in fitted(1.0).fitted.sites}
        assert ORDER.index(name_of(sites["large"])) <= ORDER.index(name_of(sites["small"]))

    @pytest.mark.whole
    def test_a_larger_budget_never_gives_less(self):
        less, more = (
            [ORDER.index(name_of(one.recipe)) for one in fitted(budget).fitted.sites] for budget in (0.01, 1000.0)
        )
        assert more == [0, 0, 0]
        assert sum(less) > 0

    @pytest.mark.whole
    def test_a_cheap_controller_gets_richer_recipes(self):
        """Experts, which are mixed and not made, at a budget that a chunked hypernetwork exceeds."""
        prices = {
            type(controller): {one.site: one.price for one in fitted(1e6, controller=controller).fitted.sites}
            for controller in (ChunkedController(), ExpertsController(experts=2))
        }
        assert prices[ExpertsController]["small"] < prices[ChunkedController]["small"]

    def test_the_example_may_be_told_by_a_function_and_is_asked_for_only_where_needed(self):
        asked = []

        def first():
            asked.append(1)
            return example()

        assert fitted(example=first).fitted is not None
        assert asked == [1]
        assert fitted(delta="full", example=first).fitted is None
        assert asked == [1]

    @pytest.mark.parametrize("space", [OneChoice, pytest.param(Everything, marks=pytest.mark.whole)])
    def test_each_site_of_a_space_is_seen(self, space):
        given = torch.randn(4, 1, 8, 8), torch.randn(4, 3)
        mutator = DynamicWeightMutator(
            space(), context=VectorContext(3, dim=8), sampler=RandomSampler(seed=0), delta="auto", example=given
        )
        assert all(one.runs for one in mutator.fitted.sites)
        assert {one.site for one in mutator.fitted.sites} == set(mutator.source.sites)
        mutator.reset()
        assert mutator(given[0], context=given[1]).isfinite().all()

    @pytest.mark.whole
    def test_with_a_strategy_of_nnis_own(self):
        given = torch.randn(4, 1, 8, 8), torch.randn(4, 3)
        mutator = DynamicWeightMutator(
            Either(), context=VectorContext(3, dim=8), sampler=False, delta="auto", example=given
        )
        assert len(mutator.fitted.sites) == 2


class TestWhatComesOut:
    def test_a_saved_network_carries_what_was_picked(self, told, tmp_path):
        mutator, (x, context) = fitted(5.0), example()
        network = mutator.freeze({}).eval()
        save(network, tmp_path / "network", example=(x, context))
        loaded = load(tmp_path / "network")
        assert {one.delta for one in loaded.source.recipes.values()} == {"low_rank"}
        assert torch.allclose(loaded(x, context), network(x, context), atol=1e-6)

    def test_the_table_has_a_row_for_each_site(self):
        sites = (
            SiteFitted("stem", Recipe("learned", "low_rank", 4), 0.01, 0.004, 0.005),
            SiteFitted("rare", Recipe("learned", "scale"), 0.0, 0.0, 0.0, runs=False),
        )
        lines = str(Fitted(0.5, sites)).splitlines()
        assert lines[0] == "recipes by `delta='auto'`, making_budget=0.5"
        assert lines[-2].split() == ["stem", "learned", "low_rank", "4", "10.00", "ms", "4.00", "ms", "5.00", "ms"]
        assert "never ran" in lines[-1]

    def test_no_example_is_refused(self):
        with pytest.raises(ConfigError, match="there is no batch to tell that by. Give one"):
            fitted(example=None)

    def test_a_network_that_decides_by_values_is_refused(self):
        with pytest.raises(ConfigError, match="it decides by values. Give the recipes yourself"):
            lift(ByValues(), base="learned").mutator(delta="auto", example=torch.randn(2, 1, 8, 8))

    def test_nothing_else_can_be_made_with_it(self):
        from nni_dynconv import DynamicFlopsProfiler

        with pytest.raises(ConfigError, match="is `auto`, which only a mutator that is given an example can decide"):
            DynamicFlopsProfiler(Either(), torch.zeros(1, 1, 8, 8), delta="auto")

    def test_a_budget_of_nothing_is_refused(self):
        with pytest.raises(ConfigError, match="making_budget"):
            fitted(0)


def test_a_controller_of_a_user_is_priced_too():
    class Constant(Controller):
        """One number for each site."""

        def bind(self, sites, context_dim):
            self.values = nn.ParameterDict({site.name.replace(".", "_"): torch.ones(1) for site in sites})

        def generate(self, sites, context):
            sets = () if context is None or context.dim() == 1 else (len(context),)
            return [self.values[site.name.replace(".", "_")].expand(*sets, site.num_generated) for site in sites]

        def select(self, sites):
            pass

    assert all(one.runs for one in fitted(controller=Constant()).fitted.sites)
