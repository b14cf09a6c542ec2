"""Diagnosis: numbers against independent ones, each planted fault found, silence about healthy networks."""

from __future__ import annotations

import copy
import json
import math

import pytest
import spaces
import torch
import torch.nn.functional as F
from often import by_default, each_once

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.utils.data import DataLoader

from nni_dynconv import (
    Controller,
    DartsSampler,
    DynamicConv2d,
    DynamicLinear,
    DynamicSepConv,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    VectorContext,
    diagnose,
    lift,
)
from nni_dynconv.errors import ConfigError, ScopeError

SAMPLERS = (RandomSampler, EnasSampler, DartsSampler, GdasSampler)


class SmallSpace(ModelSpace):
    """Two choices, one of them with a normalisation and a skip."""

    def __init__(self):
        super().__init__()
        self.stem = LayerChoice({f"conv{k}": DynamicConv2d(2, 4, k, padding=k // 2) for k in (1, 3)}, label="stem")
        candidates = {"conv3": DynamicConv2d(4, 4, 3, padding=1), "separable": DynamicSepConv(4, 4, 3)}
        candidates |= {"static": nn.Conv2d(4, 4, 3, padding=1), "skip": nn.Identity()}
        self.body = LayerChoice(candidates, label="body")
        self.head = DynamicLinear(4, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).mean((2, 3)))


def make(seed=0, sampler=GdasSampler, space=SmallSpace, **options):
    torch.manual_seed(seed)
    settings = {"sampler": sampler(seed), "context": VectorContext(5, dim=8), **options}
    return DynamicWeightMutator(space(), **settings)


def batches(count=4, batch=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x, c = torch.randn(batch, 2, 6, 6, generator=generator), torch.randn(batch, 5, generator=generator)
        yield (x, c), (x.mean((2, 3))[:, :1] * c[:, :3]).argmax(1)


def examine(mutator, progress=0.0, **options):
    return diagnose(mutator, batches(), F.cross_entropy, progress=progress, **options)


def codes(diagnosis):
    return [one.code for one in diagnosis.findings]


def train(mutator, steps=30):
    roles = mutator.parameters_by_role()
    optimizer = torch.optim.Adam(roles["weights"] + roles["controller"], lr=3e-3)
    for (x, c), y in batches(steps, seed=1):
        mutator.reset()
        optimizer.zero_grad()
        F.cross_entropy(mutator(x, context=c), y).backward()
        optimizer.step()


def generating(mutator, change):
    """Let a mutator's controller make something else."""
    plain = mutator.controller.generate
    vars(mutator.controller)["generate"] = lambda sites, context: change(plain, sites, context)
    return mutator


# Silence


@each_once(sampler=SAMPLERS, base=["none", "learned"])
def test_it_finds_nothing_at_the_start_nor_after_training(sampler, base):
    for seed in range(3):
        mutator = make(seed, sampler, base=base)
        assert codes(examine(mutator)) == []
    train(mutator)
    assert codes(examine(mutator, 0.4)) == []
    assert not [one for one in examine(mutator, 1.0).findings if one.severity != "note"]


def test_a_lifted_network_is_healthy_at_the_start_and_its_delta_asleep():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 6), nn.Flatten())
    mutator = lift(network).mutator(context=VectorContext(5, 8))
    found = examine(mutator, 0.0)
    assert [(one.code, one.severity) for one in found.findings] == [("delta-asleep", "note")]
    assert [(one.code, one.severity) for one in examine(mutator, 0.9).findings] == [("delta-asleep", "fault")]
    for site in found.sites:
        assert site.gain == pytest.approx(site.twin_gain), "the twin of a lifted layer is the layer"
        assert site.weight_scale == pytest.approx(1.0)


def test_without_context_there_is_nothing_to_say_about_it():
    mutator = make(context=None)
    plain = [(x, y) for (x, _), y in batches()]
    found = diagnose(mutator, plain, F.cross_entropy, progress=0.0)
    assert found.context is None
    assert codes(found) == []


def test_static_sites_are_no_fault():
    mutator = make(base="learned", delta="none", context=None)
    found = diagnose(mutator, [(x, y) for (x, _), y in batches()], F.cross_entropy, progress=0.0)
    assert codes(found) == []
    assert {site.made for site in found.sites} == {None}


@each_once(sampler=SAMPLERS, space=[spaces.Everything, spaces.CellSpace, spaces.PlainCellSpace])
def test_spaces_with_cells_depths_inputs_and_nested_choices_are_healthy(space, sampler):
    mutator = make(sampler=sampler, space=space)
    data = [((spaces.image(8, seed), spaces.vector(8, seed)), None) for seed in range(3)]
    found = diagnose(mutator, data, lambda y, _: (y - 1).square().mean(), progress=0.0, samples=24)
    assert [one for one in found.findings if one.code != "candidate-unseen"] == []
    known = set(mutator.source.sites)
    assert {site.site for site in found.sites} <= known
    assert len(found.sites) == len(known) or not sampler.mixes


def test_each_layers_own_input_is_a_context_too():
    mutator = make(context=OwnInputContext(8), base="learned")
    found = diagnose(mutator, [(x, y) for (x, _), y in batches()], F.cross_entropy, progress=0.0)
    assert codes(found) == []
    assert found.context.variation > 0.01
    assert found.context.code_gradient > 0
    unconnected(mutator)
    found = diagnose(mutator, [(x, y) for (x, _), y in batches()], F.cross_entropy, progress=0.0)
    assert codes(found) == ["context-ignored"]


class Constrained(SmallSpace):
    """Where what a diagnosis makes up breaks the constraint, it has to draw."""

    def __init__(self):
        super().__init__()
        width, kernel = nni.choice("width", [2, 4]), nni.choice("kernel", [1, 3])
        self.add_mutable(ExpressionConstraint(width * kernel < 12, label="size"))
        self.head = DynamicConv2d(4, width, kernel, padding="same")

    def forward(self, x):
        return self.head(self.body(self.stem(x))).mean(1).flatten(1)


@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=[RandomSampler, FairSampler, GdasSampler]))
def test_constraints_of_a_space_are_kept_and_the_search_goes_on_as_before(sampler):
    """GDAS's noise of the drawn sample and the rest of a fair round used to be those of the diagnosis's own draws."""
    mutator, alone = (make(space=Constrained, sampler=sampler).eval() for _ in range(2))
    (x, c), _ = next(batches(1))
    for _ in range(6):
        assert mutator.reset() == alone.reset()
        assert codes(examine(mutator)) == []
        found, expected = (
            torch.autograd.grad(one(x, context=c).square().sum(), one.parameters(), allow_unused=True)
            for one in (mutator, alone)
        )
        for gradient, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, wanted)


def test_a_loader_that_shuffles_leaves_the_global_generator_as_it_was():
    (x, c), y = next(batches(1))
    pairs = [((one, context), target) for one, context, target in zip(x, c, y, strict=True)]
    mutator, before = make(), torch.get_rng_state()
    diagnose(mutator, DataLoader(pairs, batch_size=4, shuffle=True), F.cross_entropy, progress=0.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, whose generator is another one")
def test_the_gpus_generator_is_left_as_it_was():
    mutator = make().cuda()
    mutator.space.body.register_forward_hook(lambda choice, args, y: F.dropout(y))
    data = [((x.cuda(), c.cuda()), y.cuda()) for (x, c), y in batches()]
    before = torch.cuda.get_rng_state()
    diagnose(mutator, data, F.cross_entropy, progress=0.0)
    assert torch.equal(torch.cuda.get_rng_state(), before)


# Planted faults


def zero(mutator):
    generating(mutator, lambda plain, sites, context: [0 * one for one in plain(sites, context)])


def unconnected(mutator):
    generating(mutator, lambda plain, sites, context: plain(sites, torch.zeros_like(context)))


def dead(mutator):
    mutator.space.body["conv3"].register_forward_hook(lambda op, args, y: (y - 1e3).relu())


def constant(mutator):
    mutator.space.body["static"].register_forward_hook(lambda op, args, y: 0 * y + 2)


def cut_off(mutator):
    mutator.space.body["separable"].register_forward_hook(lambda op, args, y: y.detach())


def not_training(mutator):
    mutator.space.body["separable"].norm.eval()


def training(mutator):
    mutator.eval()
    mutator.space.body["separable"].norm.train()


def decided(mutator):
    with torch.no_grad():
        mutator.sampler.alpha("body")[3] = 10.0


def infinite(mutator):
    generating(mutator, lambda plain, sites, context: [one / 0 for one in plain(sites, context)])


FAULTS = {
    zero: ("controller-zero", "controller"),
    unconnected: ("context-ignored", "controller"),
    dead: ("candidate-dead", "body/conv3"),
    constant: ("candidate-dead", "body/static"),
    cut_off: ("candidate-untrained", "body/separable"),
    not_training: ("norm-mode", "body.separable.norm"),
    training: ("norm-mode", "body.separable.norm"),
    decided: ("sampler-collapsed", "body"),
    infinite: ("not-finite", "all sites"),
}


@each_once(fault=FAULTS, trained=[False, True])
def test_a_planted_fault_is_found_and_nothing_else(fault, trained):
    mutator = make(base="learned" if trained else "none")
    if trained:
        train(mutator)
    fault(mutator)
    found = examine(mutator, 0.4 if trained else 0.0)
    assert [(one.code, one.where) for one in found.faults] == [FAULTS[fault]]
    assert found.warnings == ()


class Normed(SmallSpace):
    """A normalisation behind a choice, and a choice that the output does not follow, if so asked."""

    def __init__(self, dead=False):
        super().__init__()
        self.norm, self.dead = nn.GroupNorm(1, 4), dead
        self.aside = LayerChoice([nn.Linear(3, 3), nn.Identity()], label="aside")

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.head((x + self.norm(self.body(x))).mean((2, 3)))
        return y + (0 if self.dead else 1) * self.aside(y)


@pytest.mark.parametrize("sampler", [*SAMPLERS, FairSampler])
def test_a_choice_that_nothing_follows_is_found_whatever_the_sampler_learns_by(sampler):
    assert codes(examine(make(space=Normed, sampler=sampler), 0.4)) == []
    dead = make(space=lambda: Normed(dead=True), sampler=sampler)
    found = [(one.where, one.severity) for one in examine(dead, 0.4).findings if one.code == "choice-dead"]
    assert found == [("aside", "fault")]
    assert [one.severity for one in examine(dead, 0.0).findings if one.code == "choice-dead"] == ["note"]


def test_a_norm_that_cancels_the_factor_of_gdas_is_found_and_the_way_out_is_one():
    def find(paths):
        mutator = make(space=Normed, sampler=lambda seed: GdasSampler(seed, paths=paths))
        with torch.no_grad():
            mutator.space.body["static"].weight.mul_(30)  # its variance is far above what the norm adds to it
        return [one for one in examine(mutator, 0.4).findings if one.code == "choice-dead"]

    assert find(2) == []
    (found,) = find(1)
    assert found.where == "body" and "take 2" in found.remedy


@pytest.mark.parametrize("base", ["none", "learned"])
@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_scale_that_is_ten_times_off_is_found_at_the_start(factor, base):
    mutator = make(base=base)
    generating(mutator, lambda plain, sites, context: [factor * one for one in plain(sites, context)])
    (fault,) = examine(mutator).findings
    assert (fault.code, fault.severity, fault.where) == ("scale", "fault", "all sites")
    assert fault.expected == "0.25 to 4"


def test_a_single_site_that_is_off_is_named():
    mutator = make()
    site = mutator.space.head.site
    generating(
        mutator,
        lambda plain, sites, context: [
            10 * one if asked.name == site else one for asked, one in zip(sites, plain(sites, context), strict=True)
        ],
    )
    assert [(one.code, one.where) for one in examine(mutator).findings] == [("scale", site)]


def test_an_op_whose_output_is_off_is_found_by_its_gain():
    class LoudSpace(SmallSpace):
        def __init__(self):
            super().__init__()
            self.loud = DynamicConv2d(3, 3, 1)
            plain = self.loud.compute
            self.loud.compute = lambda x, weights, counts=None: plain(
                x, {name: one * (100 if one.dim() > 4 else 1) for name, one in weights.items()}, counts
            )

        def forward(self, x):
            return self.loud(super().forward(x)[..., None, None]).flatten(1)

    (fault,) = examine(make(space=LoudSpace)).findings
    assert (fault.code, fault.where) == ("gain", "loud")


def test_an_encoder_that_is_blind_is_told_from_a_controller_that_does_not_listen():
    class Blind(VectorContext):
        def forward(self, context):
            return super().forward(0 * context)

    (fault,) = examine(make(context=Blind(5, dim=8))).findings
    assert (fault.code, fault.where) == ("context-ignored", "context encoder")
    assert "same code for all contexts" in fault.remedy


def test_an_encoder_without_gradient_is_a_warning():
    class Detached(VectorContext):
        def forward(self, context):
            return super().forward(context).detach()

    (warning,) = examine(make(context=Detached(5, dim=8))).findings
    assert (warning.code, warning.severity) == ("context-detached", "warning")


def test_contexts_that_are_all_alike_are_a_note():
    alike = [((x, torch.ones_like(c)), y) for (x, c), y in batches()]
    (note,) = diagnose(make(), alike, F.cross_entropy, progress=0.0).findings
    assert (note.code, note.severity) == ("context-alike", "note")


def test_a_context_that_tells_nothing_is_noted_when_the_search_is_late():
    mutator = make(base="learned")
    mutator.source.factors.data.fill_(0.01)
    assert codes(examine(mutator, 1.0)) == ["context-unused"]
    assert "context-unused" not in codes(examine(mutator, 0.2))


def test_where_a_whole_choice_has_no_gradient_it_is_a_note_at_first_and_a_fault_later():
    def find(progress):
        mutator = make()
        mutator.space.body.register_forward_hook(lambda choice, args, y: 0 * y)
        return [(one.code, one.severity) for one in examine(mutator, progress).findings if "body" in one.where]

    assert find(0.0) == [("candidate-untrained", "note")]
    assert find(0.9) == [("candidate-untrained", "fault")]


@pytest.mark.parametrize(("progress", "severity"), [(0.2, "fault"), (None, "warning"), (0.9, None)])
def test_when_a_sampler_may_have_decided_depends_on_the_progress(progress, severity):
    mutator = make()
    decided(mutator)
    found = {one.code: one for one in examine(mutator, progress).findings}
    assert ("sampler-collapsed" in found) == (severity is not None)
    if severity:
        finding = found["sampler-collapsed"]
        assert finding.severity == severity
        assert "`skip`, which has no weights, has probability 1.000" in finding.found


def test_skips_that_win_everywhere_are_told_even_at_the_end():
    class TwoSkips(SmallSpace):
        def __init__(self):
            super().__init__()
            candidates = {"conv": DynamicConv2d(2, 2, 3, padding=1), "pool": nn.AvgPool2d(3, 1, 1)}
            self.first = LayerChoice(candidates | {"dilated": nn.Conv2d(2, 2, 3, padding=1)}, label="first")

        def forward(self, x):
            return super().forward(self.first(x))

    mutator = make(space=TwoSkips)
    assert "skips-dominate" not in codes(examine(mutator, 1.0))
    with torch.no_grad():
        mutator.sampler.alpha("body")[3] = mutator.sampler.alpha("first")[1] = 5.0
    (warning,) = examine(mutator, 1.0).warnings
    assert (warning.code, warning.where) == ("skips-dominate", "body, first")


@pytest.mark.parametrize("candidates", [2, 3, 5, 9])
def test_skips_can_win_whatever_the_number_of_candidates(candidates):
    """Of two, they would have had to have a probability above one."""

    class FewCandidates(SmallSpace):
        def __init__(self):
            super().__init__()
            for label, width in (("body", 4), ("first", 2)):
                convs = {str(number): DynamicConv2d(width, width, 3, padding=1) for number in range(candidates - 1)}
                setattr(self, label, LayerChoice({"skip": nn.Identity(), **convs}, label=label))

        def forward(self, x):
            return super().forward(self.first(x))

    def told(probability):
        mutator = make(space=FewCandidates)
        with torch.no_grad():
            for label in ("body", "first"):
                mutator.sampler.alpha(label)[0] = math.log(probability / (1 - probability) * (candidates - 1))
        return "skips-dominate" in codes(examine(mutator, 1.0))

    equal = 1 / candidates
    assert told(0.95) and not told(equal) and not told(equal + 0.1 * (1 - equal))


def test_a_norm_that_follows_slowly_is_not_judged_before_it_had_time():
    """A hundred updates with momentum 0.01 leave 37 % of the first statistics; it was told to be stale."""
    for momentum, stale in ((0.1, True), (0.01, False), (None, True)):
        mutator = make()
        norm = mutator.space.body["separable"].norm
        norm.momentum = momentum
        norm.num_batches_tracked.fill_(100)
        norm.running_var.fill_(1e4)
        assert ("norm-stale" in codes(examine(mutator))) == stale, momentum


@pytest.mark.parametrize(
    ("updates", "evaluated", "severity"), [(100, False, "warning"), (100, True, "fault"), (10, True, None)]
)
def test_statistics_of_something_else_are_stale_once_they_had_time_to_settle(updates, evaluated, severity):
    mutator = make()
    norm = mutator.space.body["separable"].norm
    norm.num_batches_tracked.fill_(updates)
    norm.running_var.fill_(1e4)
    mutator.train(not evaluated)
    found = [(one.code, one.severity, one.where) for one in examine(mutator).findings]
    assert found == ([("norm-stale", severity, "body.separable.norm")] if severity else [])


def test_a_candidate_inside_another_one_may_stay_unseen():
    class Nested(SmallSpace):
        def __init__(self):
            super().__init__()
            inner = LayerChoice({f"c{n}": DynamicConv2d(4, 4, 1) for n in range(6)}, label="inner")
            self.body = LayerChoice({"skip": nn.Identity(), "inner": nn.Sequential(inner)}, label="body")

    found = examine(make(space=Nested), samples=2)
    assert any(one.code == "candidate-unseen" and one.severity == "note" for one in found.findings)
    assert "candidate-unseen" not in codes(examine(make(space=Nested), samples=60))


# Numbers


class Echo(Controller):
    """Makes the context's only number, times a value of each weight's own."""

    def bind(self, sites, context_dim):
        self.bank = {
            site.name: torch.randn(site.num_generated, generator=torch.Generator().manual_seed(1)) for site in sites
        }

    def generate(self, sites, context):
        return [context * self.bank[site.name] for site in sites]

    def select(self, sites):
        pass


class Number(nn.Module):
    out_dim = 1

    def forward(self, context):
        return context


class OneLayer(ModelSpace):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2, affine=False)
        self.conv = DynamicConv2d(2, 3, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv(self.norm(x))


def one_layer():
    mutator = DynamicWeightMutator(OneLayer(), controller=Echo(), context=Number())
    x, c = torch.randn(8, 2, 5, 5), 1 + torch.randn(8, 1)
    return mutator, x, c


def rms(x):
    return x.square().mean().sqrt().item()


def test_scale_gain_and_variation_are_those_of_the_frozen_network():
    mutator, x, c = one_layer()
    found = diagnose(mutator, [((x, c), None)], lambda y, _: y.square().mean())
    (site,) = found.sites
    frozen = copy.deepcopy(mutator).train().freeze()
    normed = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    with torch.no_grad():
        assert site.gain == pytest.approx(rms(frozen(x, c)) / rms(normed), rel=1e-4)
    assert site.variation == pytest.approx(rms(c - c.mean()) / rms(c), rel=1e-4)
    bank = mutator.controller.bank["conv"]
    assert site.made == pytest.approx(rms(c * bank), rel=1e-4)
    assert site.weight_scale == pytest.approx(rms(c * bank) * 3**0.5, rel=1e-4), "torch's is 1 / sqrt(3 fan_in)"


def test_the_static_twin_is_torchs_own_layer():
    mutator, x, c = one_layer()
    (site,) = diagnose(mutator, [((x, c), None)] * 60, lambda y, _: y.square().mean(), limit=60, samples=60).sites
    gains = []
    for seed in range(60):
        torch.manual_seed(seed)
        normed = nn.BatchNorm2d(2, affine=False)(x)
        gains.append(rms(nn.Conv2d(2, 3, 3, padding=1, bias=False)(normed).detach()) / rms(normed))
    assert site.twin_gain == pytest.approx(torch.tensor(gains).log().mean().exp().item(), rel=0.1)


def test_the_context_is_measured_by_its_gradient_and_by_the_loss_when_it_is_shuffled():
    mutator, x, c = one_layer()

    def loss(y, target):
        return (y - target).square().mean() + 1

    with torch.no_grad():
        target = mutator(x, context=c)
    found = diagnose(mutator, [((x, c), 2 * target)] * 3, loss, samples=3)
    leaf = c.clone().requires_grad_()
    value = loss(mutator(x, context=leaf), 2 * target)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert found.loss == pytest.approx(value.item(), rel=1e-4)
    assert found.context.gradient == pytest.approx((gradient.norm() * c.norm() / value).item(), rel=1e-3)
    assert found.context.gap > 2 * found.context.gap_error > 0


def test_a_normalisation_is_compared_with_its_running_statistics():
    mutator, x, c = one_layer()
    norm = mutator.space.norm
    norm.num_batches_tracked.fill_(100)
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.fill_(4.0)
    (reading,) = diagnose(mutator, [((x, c), None)], lambda y, _: y.square().mean()).norms
    expected = rms((x.mean((0, 2, 3)) - norm.running_mean) / 2)
    assert reading.mean_shift == pytest.approx(expected, rel=1e-3)
    assert reading.variance_ratio == pytest.approx((x.var((0, 2, 3)) / 4).log().mean().exp().item(), rel=1e-3)
    assert (reading.updates, reading.training) == (100, True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_leaves_nothing_behind(sampler):
    mutator = make(sampler=sampler)
    mutator.reset()
    before = {name: one.clone() for name, one in mutator.state_dict().items() if isinstance(one, torch.Tensor)}
    names = {module: set(vars(module)) for module in mutator.modules()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in mutator.modules()]
    sample, generator, state = mutator.sample, mutator.sampler.generator.get_state(), torch.get_rng_state()
    examine(mutator)
    assert mutator.sample == sample
    assert torch.equal(mutator.sampler.generator.get_state(), generator)
    assert torch.equal(torch.get_rng_state(), state)
    for name, one in mutator.state_dict().items():
        assert not isinstance(one, torch.Tensor) or torch.equal(one, before[name]), name
    assert all(one.grad is None for one in mutator.parameters())
    assert {module: set(vars(module)) for module in mutator.modules()} == names
    assert [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in mutator.modules()] == hooks


def test_the_same_seed_says_the_same():
    first, second = examine(make()), examine(make())
    assert first.to_json() == second.to_json()
    assert examine(make(), seed=5).to_json() != first.to_json()


def test_every_candidate_is_run_though_the_sampler_would_not_draw_it():
    mutator = make()
    decided(mutator)
    assert {one.name: one.runs for one in examine(mutator, samples=4).candidates}["body/conv3"] == 1


# Words


def test_the_report_has_what_was_measured_and_the_way_out():
    mutator = make()
    dead(mutator)
    found = examine(mutator)
    text = str(found)
    assert text.startswith("12 runs, at 0% of the search, loss ")
    assert "1 fault, 0 warnings, 0 notes" in text
    for word in (*(site.site for site in found.sites), "body/skip", "body.separable.norm", "context: varies by"):
        assert word in text
    assert (
        "fault candidate-dead at `body/conv3`: gives zeros; expected outputs that follow the input.\n  Look at" in text
    )


def test_it_goes_into_json_and_back():
    mutator = make()
    infinite(mutator)
    plain = json.loads(examine(mutator).to_json(), parse_constant=pytest.fail)
    assert plain["findings"][0]["code"] == "not-finite"
    assert len(plain["sites"]) == 5


def test_a_finding_can_be_ignored_by_its_code():
    mutator = make()
    not_training(mutator)
    assert codes(examine(mutator, ignore=["norm-mode"])) == []


def test_wrong_arguments_are_told():
    mutator = make()
    with pytest.raises(ConfigError, match="needs either `loss`, as in `loss\\(output, y\\)`, or `step`"):
        diagnose(mutator, batches())
    with pytest.raises(ConfigError, match="`batches` is empty"):
        diagnose(mutator, [], F.cross_entropy)
    with pytest.raises(ConfigError, match="`progress` is 50, but must be between 0"):
        examine(mutator, 50)
    with pytest.raises(ConfigError, match="no finding `norm-mod` to ignore. Did you mean `norm-mode`"):
        examine(mutator, ignore=["norm-mod"])
    with pytest.raises(ScopeError, match="sampler=False"):
        examine(DynamicWeightMutator(SmallSpace(), sampler=False, context=VectorContext(5, 8)))


# After a training


def test_a_training_that_diverged_is_told_as_such_and_not_blamed_on_the_initialisation():
    """A loss of 6e18 used to be called an initialisation's fault."""
    mutator = make(sampler=RandomSampler)
    started = examine(mutator).loss
    optimizer = torch.optim.SGD(mutator.space.parameters(), lr=1e3)
    for (x, c), y in batches(4):
        mutator.reset()
        optimizer.zero_grad()
        F.cross_entropy(mutator(x, context=c), y).backward()
        torch.nn.utils.clip_grad_norm_(mutator.space.parameters(), 1.0)
        optimizer.step()
    for told in ({"started": started}, {}):
        (fault,) = examine(mutator, progress=1.0, **told).faults
        assert (fault.code, fault.severity) == ("diverged", "fault") and "learning rate" in fault.remedy
    assert json.loads(examine(mutator, started=started).to_json())["started"] == started


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.9])
def test_a_loss_near_that_of_the_first_weights_is_no_divergence(factor):
    mutator = make()
    loss = examine(mutator).loss
    assert "diverged" not in codes(examine(mutator, progress=1.0, started=loss / factor))
    assert "diverged" in codes(examine(mutator, progress=1.0, started=loss / 3.2))


class Zero(nn.Module):
    def forward(self, x):
        return 0 * x


class ZeroSpace(SmallSpace):
    def __init__(self):
        super().__init__()
        self.body = LayerChoice({"conv3": DynamicConv2d(4, 4, 3, padding=1), "none": Zero()}, label="body")


def test_a_candidate_without_weights_that_gives_zeros_is_named():
    (note,) = examine(make(space=ZeroSpace)).findings
    assert (note.code, note.severity, note.where) == ("candidate-dead", "note", "body/none")
    assert "gives zeros" in note.found


def test_norms_of_own_input_are_named_after_their_sites():
    found = diagnose(make(context=OwnInputContext(8)), ((x, y) for (x, _), y in batches()), F.cross_entropy)
    names = [one.name for one in found.norms]
    assert "body.separable.norm" in names and "own_input of body/conv3" in names
    assert not any("encoder" in one for one in names)
