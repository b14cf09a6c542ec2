"""Controllers pass their suite; what each promises of its own is held here or in the files beside this one."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nni_dynconv.errors import ConfigError
from nni_dynconv.generation import controllers
from nni_dynconv.generation.controllers import (
    BasisController,
    ChunkedController,
    Controller,
    CoordinateController,
    ExpertsController,
    FlatController,
    LowRankController,
)
from nni_dynconv.generation.controllers.signs import random_signs
from nni_dynconv.generation.initialisation import scale_of
from nni_dynconv.sites.spec import Site, WeightSpec
from nni_dynconv.testing.suites import ControllerSuite


class TestChunked(ControllerSuite):
    def make(self):
        return ChunkedController(hidden=64)


class TestChunkedOfOtherSettings(ControllerSuite):
    def make(self):
        return ChunkedController(hidden=32, chunk=7, encoding="magnitude_invariant", scale_rule="ghn")


class TestLowRank(ControllerSuite):
    def make(self):
        return LowRankController(rank=6)


class TestCoordinate(ControllerSuite):
    def make(self):
        return CoordinateController()


class TestTransformedCoordinate(ControllerSuite):
    def make(self):
        return CoordinateController(nesting="transform", encoding="magnitude_invariant")


class TestFreeCoordinate(ControllerSuite):
    def make(self):
        return CoordinateController(nesting="free", waves=40)


class TestFlat(ControllerSuite):
    def make(self):
        return FlatController()


class TestExperts(ControllerSuite):
    def make(self):
        return ExpertsController()


class TestCompetingExperts(ControllerSuite):
    def make(self):
        return ExpertsController(experts=3, routing="softmax", encoding="magnitude_invariant")


class TestSignedExperts(ControllerSuite):
    def make(self):
        return ExpertsController(experts=3, routing="linear")


class TestExpertsOfRows(ControllerSuite):
    def make(self):
        return ExpertsController(experts=3, routing="linear", shares="row")


class TestBasis(ControllerSuite):
    def make(self):
        return BasisController(basis=4, hidden=64)


class TestBasisOfRows(ControllerSuite):
    def make(self):
        return BasisController(basis=3, chunk=7, shares="row", encoding="magnitude_invariant")


@pytest.mark.parametrize("make", [ExpertsController, BasisController])
@pytest.mark.parametrize("context_dim", [None, 6])
def test_mixtures_are_what_is_generated(make, context_dim):
    sites = conv_sites(2)
    controller = bound(sites, make, context_dim)
    context = torch.randn(3, context_dim or 2)
    made = controller.generate(sites, context)
    for site, mixture, whole in zip(sites, controller.mixtures(sites, context), made, strict=True):
        torch.testing.assert_close(mixture.whole(site).expand_as(whole), whole)


def test_a_basis_is_made_once_for_all_contexts_and_uncorrelated():
    sites = conv_sites(2)
    controller = bound(sites, BasisController, basis=6)
    first, second = controller.mixtures(sites, torch.randn(5, 32))
    banks = torch.cat([first.bank, second.bank])
    assert banks.shape == (12, 16 * 16 * 9)
    correlation = torch.corrcoef(banks).fill_diagonal_(0).abs().max()
    assert correlation < 0.1
    assert first.shares.shape == (5, 6)
    torch.testing.assert_close(first.shares.norm(dim=1), torch.ones(5))


def test_a_basis_depends_on_the_architecture_and_not_on_the_context():
    torch.manual_seed(0)
    sites, controller = conv_sites(1), BasisController(basis=2)
    controller.architecture_dim = 3
    controller.bind(sites, 8)
    code = torch.randn(4, 8)
    code[:, 5:] = code[0, 5:]
    other, another = code.clone(), code.clone()
    other[:, :5] += 1
    another[:, 5:] += 1
    made, same, changed = (controller.mixtures(sites, one)[0] for one in (code, other, another))
    assert torch.equal(made.bank, same.bank)
    assert not torch.allclose(made.bank, changed.bank)
    assert not torch.allclose(made.shares, same.shares)


class TinyController(Controller):
    """What a user writes: one row a site and one a context, multiplied."""

    def bind(self, sites, context_dim):
        self.rows = torch.nn.ParameterDict({site.name: torch.randn(site.num_generated) for site in sites})
        self.factor = torch.nn.Linear(context_dim, 1) if context_dim else None

    def generate(self, sites, context):
        factor = 1.0 if context is None else 1.0 + self.factor(context)
        return [factor * self.rows[site.name] for site in sites]

    def select(self, sites):
        self.rows = torch.nn.ParameterDict({site.name: self.rows[site.name] for site in sites})


class TestTiny(ControllerSuite):
    def make(self):
        return TinyController()


def conv_sites(count, kernel_size=3, channels=16):
    spec = WeightSpec("weight", (channels, channels, kernel_size, kernel_size), channels * kernel_size**2)
    return [Site(f"site{index}", "DynamicConv2d", (spec,)) for index in range(count)]


def bound(sites, make=ChunkedController, context_dim=32, **settings):
    torch.manual_seed(0)
    controller = make(**settings)
    controller.bind(sites, context_dim)
    return controller


def size_of(controller):
    return sum(parameter.numel() for parameter in controller.parameters())


NAMES = [name for name in controllers.__all__ if name != "Controller"]
INDEPENDENT_OF_SIZES = (ChunkedController, LowRankController, CoordinateController, BasisController)


@pytest.mark.parametrize("make", INDEPENDENT_OF_SIZES)
def test_one_more_candidate_adds_one_row(make):
    assert size_of(bound(conv_sites(12), make)) - size_of(bound(conv_sites(11), make)) == 16


@pytest.mark.parametrize("make", INDEPENDENT_OF_SIZES)
def test_larger_kernels_and_widths_add_no_parameter(make):
    small = size_of(bound(conv_sites(3, 3, 8), make))
    assert size_of(bound(conv_sites(3, 7, 8), make)) == size_of(bound(conv_sites(3, 3, 64), make)) == small


def test_ten_times_as_many_candidates_grow_it_by_less_than_a_tenth():
    from examples.video_denoising.space import DenoisingSpace
    from nni_dynconv import DynamicWeightMutator

    mutator = DynamicWeightMutator(DenoisingSpace())
    count, candidates = len(mutator.source.sites), sum(map(len, mutator.choices.values()))
    assert candidates == 13
    sites = [
        Site(f"{name}#{copy}", site.op, site.specs) for name, site in mutator.source.sites.items() for copy in range(10)
    ]
    assert len(sites) == 10 * count
    assert size_of(bound(sites)) < 1.1 * size_of(bound(list(mutator.source.sites.values())))


def test_a_larger_kernel_uses_the_same_parameters():
    small, large = bound(conv_sites(1, 3)), bound(conv_sites(1, 7))
    large.load_state_dict(small.state_dict())
    context = torch.randn(2, 32)
    three, seven = (one.generate(conv_sites(1, size), context)[0] for one, size in ((small, 3), (large, 7)))
    torch.testing.assert_close(three, seven[:, : three.shape[1]])  # the same first chunks
    seven.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in large.parameters())


@pytest.mark.parametrize("make", [ChunkedController, LowRankController])
def test_an_output_that_sums_over_many_chunks_is_not_larger(make):
    """Chunks used to be nearly alike, and behind a ReLU their sum was two to four times too large."""
    sites = conv_sites(4, 3, 64)
    with torch.no_grad():
        made = torch.stack(bound(sites, make, context_dim=None).generate(sites, None)).view(4, 64, 576) / 24
    x = torch.rand(100, 576)  # far from zero mean
    gains = (x @ made.mT).square().mean((1, 2)).sqrt() / x.square().mean().sqrt()
    assert (gains > 0.7).all() and (gains < 1.5).all(), gains


def test_low_rank_weights_have_the_shape_asked_for_and_the_rank_they_are_said_to_have():
    specs = (
        WeightSpec("square", (12, 25), 25),
        WeightSpec("line", (30, 20, 7), 140),
        WeightSpec("volume", (16, 8, 3, 3, 3), 216),
        WeightSpec("bias", (30,), 140, "bias"),
    )
    sites = [Site("odd", "Odd", specs)]
    made = bound(sites, LowRankController, rank=3).generate(sites, torch.randn(32))[0]
    assert made.shape == (sites[0].num_generated,)
    parts = made.detach().split([spec.numel for spec in specs])
    matrices = [part.view(spec.shape[0], -1) for part, spec in zip(parts[:3], specs[:3], strict=True)]
    assert [int(torch.linalg.matrix_rank(one.double(), rtol=1e-5)) for one in matrices] == [3, 3, 3]


def test_what_two_factors_would_not_make_smaller_is_made_whole():
    sites = [Site("small", "DynamicConv2d", (WeightSpec("weight", (8, 1, 3, 3), 9),))]
    made = bound(sites, LowRankController, rank=8).generate(sites, torch.randn(32))[0]
    assert int(torch.linalg.matrix_rank(made.detach().view(8, 9))) == 8
    factors = [spec.shape for spec in bound(sites, LowRankController, rank=4)._factored(sites)[0].specs]
    assert factors == [(8, 4), (4, 1, 3, 3)]  # 68 values for 72


def test_every_channel_of_a_depthwise_convolution_has_a_kernel_of_its_own():
    """The channels used to share `rank` kernels."""
    sites = [Site("depthwise", "DynamicConv2d", (WeightSpec("weight", (64, 1, 5, 5), 25, groups=64),))]
    made = bound(sites, LowRankController, rank=2).generate(sites, None)[0]
    assert int(torch.linalg.matrix_rank(made.detach().view(64, 25))) == 25


def test_the_largest_site_costs_the_others_nothing():
    """The encoded positions of the largest site of the space used to go through a layer at every call."""
    spec = WeightSpec("weight", (500, 64), 64)
    sites = [*conv_sites(2), Site("large", "DynamicLinear", (spec,))]
    with FlopCounterMode(display=False) as alone:
        bound(sites[:2]).generate(sites[:1], None)
    with FlopCounterMode(display=False) as beside:
        bound(sites).generate(sites[:1], None)
    assert beside.get_total_flops() == alone.get_total_flops()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_kept_from_learning_stays_so_when_sites_are_forgotten(name):
    sites = conv_sites(3)
    controller = bound(sites, getattr(controllers, name)).requires_grad_(False)
    controller.select(sites[1:])
    assert not any(parameter.requires_grad for parameter in controller.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_controller_is_made_on_the_default_device(name):
    with torch.device("meta"):
        controller = bound(conv_sites(2), getattr(controllers, name))
    assert {one.device.type for one in (*controller.parameters(), *controller.buffers())} == {"meta"}


def test_signs_are_the_same_whatever_the_default_device():
    """They used to be drawn on that device, which does not take a generator of the CPU."""
    with torch.device("meta"):
        signs = random_signs(3, 16)
    assert torch.equal(signs, random_signs(3, 16))


def test_the_flat_controller_grows_with_the_weights():
    sites = conv_sites(3)
    controller = bound(sites, FlatController, hidden=20)
    assert size_of(controller.heads) == 21 * sum(site.num_generated for site in sites)


def test_experts_are_mixed_by_shares_that_the_context_decides():
    sites = conv_sites(2)
    controller = bound(sites, ExpertsController, experts=3, routing="softmax")
    with torch.no_grad():
        controller.logits[1] = torch.tensor([100.0, 0.0, 0.0])
        made = controller.generate(sites, torch.randn(5, 32))
    torch.testing.assert_close(made[1], controller.experts_of(sites[1])[0].expand(5, -1))
    assert (made[0][0] - made[0][1]).abs().max() > 0.01


def test_experts_are_stored_as_large_as_the_weights_that_come_out_of_them():
    """So that a step of Adam changes a weight by as much as it changes one of a layer of the network."""
    sites = conv_sites(2)
    controller = bound(sites, ExpertsController, scale_rule="torch")
    for site, stored in zip(sites, controller.stored, strict=True):
        torch.testing.assert_close(stored / scale_of(site, "torch"), controller.experts_of(site))
        assert 0.8 < controller.experts_of(site).std() < 1.2
    expected = controller.experts_of(sites[1])
    controller.select(sites[1:])
    assert torch.equal(controller.experts_of(sites[1]), expected)


@pytest.mark.parametrize("routing", ["softmax", "sigmoid", "linear"])
def test_without_context_experts_have_equal_shares_of_norm_one_at_the_start(routing):
    sites = conv_sites(1)
    controller = bound(sites, ExpertsController, context_dim=None, routing=routing)
    expected = torch.full((4,), 0.5) @ controller.experts_of(sites[0])
    torch.testing.assert_close(controller.generate(sites, None)[0], expected)


@pytest.mark.parametrize(
    ("routing", "logits", "shares"),
    [("sigmoid", (20.0, 40.0), (0.5**0.5, 0.5**0.5)), ("softmax", (20.0, 40.0), (0.0, 1.0)),
     ("linear", (-30.0, 40.0), (-0.6, 0.8))],
)  # fmt: skip
def test_sigmoid_shares_add_up_softmax_shares_compete_and_linear_shares_have_a_sign(routing, logits, shares):
    sites = conv_sites(1)
    controller = bound(sites, ExpertsController, context_dim=None, experts=2, routing=routing)
    with torch.no_grad():
        controller.logits[0] = torch.tensor(logits)
        made = controller.generate(sites, None)[0]
    torch.testing.assert_close(made, torch.tensor(shares) @ controller.experts_of(sites[0]), rtol=1e-4, atol=1e-4)


def test_rows_have_shares_of_their_own_and_a_vector_has_one():
    specs = WeightSpec("weight", (2, 3, 1, 1), 3), WeightSpec("bias", (2,), 3, "bias")
    sites = [*conv_sites(1), Site("conv", "DynamicConv2d", specs)]
    controller = bound(sites, ExpertsController, context_dim=None, experts=2, routing="linear", shares="row")
    assert controller.logits.shape == (16 + 3, 2)
    with torch.no_grad():
        controller.logits[16:] = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-3.0, 4.0]])
        made = controller.generate(sites, None)[1]
    first, second = controller.experts_of(sites[1])
    torch.testing.assert_close(made, torch.cat([first[:3], second[3:6], -0.6 * first[6:] + 0.8 * second[6:]]))
    controller.select(sites[1:])
    torch.testing.assert_close(controller.generate(sites[1:], None)[0], made)


def test_rows_of_a_site_start_with_its_shares():
    sites, context = conv_sites(2), torch.randn(5, 32)
    whole, rows = (
        bound(sites, ExpertsController, routing="linear", shares=shares).generate(sites, context)
        for shares in ("site", "row")
    )
    torch.testing.assert_close(rows, whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_there_is_not_is_refused_by_name(name):
    make = getattr(controllers, name)
    with pytest.raises(ConfigError, match=rf"`scale_rule` in `{name}` is 'hyperfan' \(str\), but must be one of 'hyp"):
        make(scale_rule="hyperfan")
    with pytest.raises(
        ConfigError, match=rf"`encoding` in `{name}` is 'none' \(str\), but must be one of 'layer_norm'"
    ):
        make(encoding="none")


def test_a_single_expert_has_no_linear_routing():
    with pytest.raises(ConfigError, match="`experts` in `ExpertsController` is 1, but `routing` 'linear'"):
        ExpertsController(1, routing="linear")


def test_settings_of_one_controller_are_refused_in_its_words():
    with pytest.raises(
        ConfigError, match="`rank` in `LowRankController` is 0, but must be 1 or more. Left out, it is 8"
    ):
        LowRankController(rank=0)
    with pytest.raises(
        ConfigError, match="`routing` in `ExpertsController` is .* must be one of 'sigmoid', 'softmax', 'linear'"
    ):
        ExpertsController(routing="sigmod")
    with pytest.raises(
        ConfigError, match="`nesting` in `CoordinateController` is .* one of 'centre', 'transform', 'fr"
    ):
        CoordinateController(nesting="center")
