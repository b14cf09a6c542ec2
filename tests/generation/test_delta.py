"""Base and delta: every kind is its formula, learns, freezes, saves, compiles, and can be searched."""

from __future__ import annotations

import copy
import json
import math

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytest
import torch
from earlier_files import save_in_format_3
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from spaces import CHANNELS, OneChoice, conv, image, vector
from torch import nn
from torch.nn.functional import conv_transpose2d
from torch.utils.checkpoint import checkpoint

import nni_dynconv
from nni_dynconv import (
    ChunkedController,
    DartsSampler,
    DynamicFlopsProfiler,
    DynamicNumParamsProfiler,
    DynamicWeightMutator,
    GdasSampler,
    RandomSampler,
    VectorContext,
    export,
    lift,
    ops,
    unlift,
)
from nni_dynconv.errors import ConfigError, ExportError, SpaceError
from nni_dynconv.generation.delta import asked_of, combine
from nni_dynconv.settings.recipe import BASES, DELTAS, Recipe
from nni_dynconv.sites.spec import Site, WeightSpec
from nni_dynconv.supernet.mixture import without_fusion

OPEN = "auto"  # is none of them, but picks one
PAIRS = [
    (base, delta)
    for base in BASES
    for delta in DELTAS
    if delta != OPEN and (base != "none" or delta in ("low_rank", "full"))
]
every_kind = pytest.mark.parametrize(("base", "delta"), PAIRS, ids=lambda one: one)
once_started = pytest.mark.parametrize(  # a given base is then a learned one
    ("base", "delta"), [pair for pair in PAIRS if pair[0] != "given"], ids=lambda one: one
)


class Plain(ModelSpace):
    """What a lifted network is made of: a choice among convolutions, groups, a transposed one, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = LayerChoice({"five": nn.Conv2d(4, 4, 5, padding=2, groups=4), "skip": nn.Identity()}, label="body")
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(self.up(self.body(self.stem(x)))).mean((2, 3)))


WHERE = [nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Linear]
SAMPLE = {"body": "five"}


def make(base, delta, context=True, sampler=RandomSampler, **options):
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if context else None
    space = lift(Plain(), where=WHERE).space
    options = {"rank": 2, "controller": ChunkedController(hidden=16), "context": encoder, **options}
    mutator = DynamicWeightMutator(space, sampler=sampler(seed=0), base=base, delta=delta, **options)
    if mutator.source.factors is not None:  # given bases start with deltas of zero
        nn.init.uniform_(mutator.source.factors, 0.2, 0.4)
    return mutator.eval()


def by_hand(spec, made, recipe, base, factor):
    """One tensor of one sample by the formula, value by value where that is not one line."""
    rows, columns = spec.shape[0], math.prod(spec.shape[1:])
    std = ({"weight": 1, "bias": 3, "scale": 100, "shift": 100}[spec.kind] * spec.fan_in) ** -0.5
    low_rank = recipe.rank * (rows + columns) < rows * columns and spec.kind == "weight"
    low_rank &= spec.groups == 1 or spec.shape[1] > 1  # no depthwise kernel
    if recipe.delta == "none":
        return base, made
    if recipe.delta == "scale" and spec.kind == "weight":
        groups = spec.transposed
        count = rows if not groups else groups * spec.shape[1]
        tensor = base.clone()
        for i in range(rows):
            for j in range(spec.shape[1]):
                channel = i if not groups else i // (rows // groups) * spec.shape[1] + j
                tensor[i, j] = base[i, j] * (1 + factor * made[channel])
        return tensor, made[count:]
    if recipe.delta == "low_rank" and low_rank:
        A = made[: rows * recipe.rank].view(rows, recipe.rank)
        B = made[rows * recipe.rank :][: recipe.rank * columns].view(recipe.rank, columns)
        value, rest = A @ B / recipe.rank**0.5, made[recipe.rank * (rows + columns) :]
    else:
        value, rest = made[: spec.numel], made[spec.numel :]
    value = std * value.reshape(spec.shape)
    return value if base is None else base + factor * value, rest


def expected_weights(mutator, name, made, sample=()):
    source = mutator.source
    recipe, base = source.recipes[name], source.base_of(name)
    factor = source.factors[list(source.sites).index(name)] if recipe.has_factor else None
    tensors = {}
    for spec in source.sites[name].specs:
        own = None if base is None else base[spec.name]
        tensors[spec.name], made = by_hand(spec, made, recipe, own, factor)
    assert made is None or not made.numel()
    return tensors


# The formula


@every_kind
def test_every_tensor_is_its_formula_for_each_sample(base, delta):
    mutator = make(base, delta).double()
    code = torch.randn(3, 8, dtype=torch.float64)
    for name, site in mutator.source.sites.items():
        asked = mutator.source.asked[name]
        (found,) = mutator.source.make([site], code)
        for row in range(3):
            made = mutator.controller.generate([asked], code[row])[0] if asked.specs else None
            for tensor, value in expected_weights(mutator, name, made).items():
                shared = found[tensor].dim() == value.dim()
                assert shared == (delta == "none")
                torch.testing.assert_close(found[tensor] if shared else found[tensor][row], value)


def test_each_channel_of_a_transposed_convolution_has_its_own_scale():
    source = make("learned", "scale", context=False).source
    site, base = source.sites["up"], source.base_of("up")
    assert [spec.shape for spec in source.asked["up"].specs] == [(6,), (6,)]
    asked, recipe = source.asked["up"], source.recipes["up"]
    std, x = {"weight": 1.0, "bias": 1.0}, torch.randn(1, 4, 3, 3)
    y = conv_transpose2d(x, base["weight"], stride=2, groups=2)
    for channel in range(6):
        made = torch.zeros(12)
        made[channel] = 1.0
        weight = combine(site, asked, recipe, made, std, base, torch.ones(()))["weight"]
        expected = y * (1 + made[:6, None, None])
        torch.testing.assert_close(conv_transpose2d(x, weight, stride=2, groups=2), expected)


@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (8, 1, 5, 5), (16, 8), (4, 4, 1, 1), (64, 64, 7)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_low_rank_is_asked_for_only_where_it_saves(shape, rank):
    site = Site(
        "conv", "op", (WeightSpec("weight", shape, math.prod(shape[1:])), WeightSpec("bias", shape[:1], 9, "bias"))
    )
    asked = asked_of(site, Recipe("none", "low_rank", rank))
    factors = rank * (shape[0] + math.prod(shape[1:]))
    assert asked.num_generated == min(factors, math.prod(shape)) + shape[0]
    assert asked.num_generated < site.num_generated or asked == site


@pytest.mark.parametrize("delta", ["low_rank", "full"])
@pytest.mark.parametrize("base", ["none", "learned"])
def test_what_is_made_has_the_right_size_at_the_start(base, delta):
    site = Site("conv", "DynamicConv2d", (WeightSpec("weight", (64, 32, 3, 3), 288),))
    asked, std = asked_of(site, Recipe(base, delta)), {"weight": 288**-0.5}
    made = torch.randn(20, asked.num_generated, generator=torch.Generator().manual_seed(0))
    zero = None if base == "none" else {"weight": torch.zeros(64, 32, 3, 3)}
    factor = None if base == "none" else torch.tensor(0.3)
    weight = combine(site, asked, Recipe(base, delta), made, std, zero, factor)["weight"]
    assert float(weight.std()) == pytest.approx(288**-0.5 * (1 if base == "none" else 0.3), rel=0.05)


@once_started
def test_the_controller_is_told_of_the_factors_only(base, delta):
    mutator = make(base, delta)
    plan = mutator.plan(SAMPLE)
    full = make("learned", "full").plan(SAMPLE)
    assert [site.name for site in plan] == [site.name for site in full]
    if delta == "none":
        assert mutator.controller is None and plan.num_generated == 0
        return
    assert plan.num_generated < full.num_generated or delta == "full"
    made = mutator.controller.generate(plan.sites, torch.zeros(2, 8))
    assert sum(one.shape[1] for one in made) == plan.num_generated


# Learning


@every_kind
def test_a_gradient_reaches_base_factors_controller_and_context(base, delta):
    mutator = make(base, delta).train()
    context = vector(3).requires_grad_()
    with mutator.using(SAMPLE):
        mutator(image(), context=context).square().sum().backward()
    gradients = {name: one.grad for name, one in mutator.source.named_parameters()}
    reached = {name.split(".")[0] for name, one in gradients.items() if one is not None and one.abs().sum() > 0}
    dynamic = {"controller", "encoder"} if delta != "none" else set()
    assert reached == dynamic | ({"bases"} if base != "none" else set()) | (
        {"factors"} if base != "none" and dynamic else set()
    )
    assert all(one is not None and one.any() for name, one in gradients.items() if name.split(".")[0] in reached)
    assert (context.grad is not None) == (delta != "none")


@every_kind
def test_a_given_base_starts_out_as_the_original(base, delta):
    torch.manual_seed(0)
    network = Plain().eval()
    space = lift(copy.deepcopy(network), where=WHERE).space
    mutator = DynamicWeightMutator(
        space, sampler=RandomSampler(seed=0), context=VectorContext(5, 8), base=base, delta=delta
    ).eval()
    with mutator.using(SAMPLE):
        y = mutator(image(), context=vector())
    expected = network.freeze(SAMPLE)(image())
    assert torch.allclose(y, expected, atol=1e-5) == (base == "given")


# Where it goes


@every_kind
def test_a_frozen_and_a_saved_network_do_what_the_supernet_does(base, delta, tmp_path):
    mutator = make(base, delta)
    with mutator.using(SAMPLE):
        expected = mutator(image(), context=vector())
    network = mutator.freeze(SAMPLE)
    torch.testing.assert_close(network(image(), vector()), expected)
    assert (network.source.controller is None) == (delta == "none")
    export.save(network, tmp_path)
    loaded = nni_dynconv.load(tmp_path)
    torch.testing.assert_close(loaded(image(), vector()), expected)
    torch.testing.assert_close(copy.deepcopy(loaded)(image(), vector()), expected)
    assert loaded.source.recipes == network.source.recipes and loaded.source.sites == network.source.sites


@once_started
def test_one_set_for_all_and_one_for_each_agree(base, delta):
    mutator = make(base, delta)
    with mutator.using(SAMPLE):
        shared = mutator(image(), context=vector(1))
        torch.testing.assert_close(mutator(image(), context=vector(1).expand(3, -1)), shared)
        index = torch.tensor([1, 0, 1])
        found = mutator(image(), context=vector(2), index=index)
        torch.testing.assert_close(found, mutator(image(), context=vector(2)[index]))


@once_started
def test_a_copy_and_a_checkpointed_forward_do_the_same(base, delta):
    mutator = make(base, delta)
    with mutator.using(SAMPLE):
        expected = mutator(image(), context=vector())
    other = copy.deepcopy(mutator)
    with other.using(SAMPLE):
        torch.testing.assert_close(other(image(), context=vector()), expected)
        other.space.body.forward, run = (
            lambda x: checkpoint(run, x, use_reentrant=False),
            other.space.body.forward,
        )
        y = other(image(), context=vector())
        torch.testing.assert_close(y, expected)
        y.sum().backward()


@pytest.mark.whole
def test_a_frozen_network_of_all_kinds_compiles_to_one_graph():
    torch._dynamo.reset()
    per_site = {"stem": {"delta": "none"}, "body/*": {"delta": "scale"}, "up": {"delta": "low_rank", "rank": 1}}
    network = make("learned", "full", per_site=per_site).freeze(SAMPLE)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image(), vector()), network(image(), vector()))


@once_started
def test_a_supernet_comes_back(base, delta, tmp_path):
    mutator, other = make(base, delta), make(base, delta, sampler=GdasSampler)
    with torch.no_grad():
        for parameter in mutator.space.parameters():
            parameter.add_(0.01)
    export.save_supernet(mutator, tmp_path)
    export.load_supernet(other, tmp_path)
    with mutator.using(SAMPLE), other.using(SAMPLE):
        torch.testing.assert_close(other(image(), context=vector()), mutator(image(), context=vector()))


@once_started
def test_unlift_gives_the_network_back(base, delta):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), image()
    expected = network(x)
    lifted = lift(network, base=base)
    mutator = lifted.mutator(delta=delta)
    assert {recipe.delta for recipe in mutator.source.recipes.values()} == {delta}
    mutator.reset()
    mutator(x).sum().backward()
    assert unlift(lifted) is network and isinstance(network[0], nn.Conv2d)
    torch.testing.assert_close(network(x), expected)


@once_started
def test_profilers_count_what_is_stored_and_what_is_computed(base, delta):
    options = {"base": base, "delta": delta, "rank": 2, "context": VectorContext(5, 8)}
    space, x = Widths(), image(1)
    stored = DynamicNumParamsProfiler(space, x, **options)
    dynamic, static = (DynamicFlopsProfiler(space, x, contexts_per_sample=n, **options) for n in (1, 0))
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(seed=0), **options)
    for _ in range(3):
        sample = mutator.reset()
        network = mutator.freeze(sample)
        shared = 0 if delta == "none" else sum(one.numel() for one in network.source.controller.parameters())
        count = sum(one.numel() for one in network.parameters())
        assert stored.profile(sample) == count
        cost = dynamic.profile(sample) - static.profile(sample)
        assert (cost == 0) == (delta == "none") == (shared == 0)


class Widths(ModelSpace):
    def __init__(self):
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.first = ops.DynamicConv2d(1, width, 3, padding=1)
        self.second = ops.DynamicConv2d(width, 4, 3)

    def forward(self, x):
        return self.second(self.first(x))


def test_autocast_and_half_precision_stay_near_float32():
    for base, delta in PAIRS:
        mutator = make(base, delta)
        with mutator.using(SAMPLE):
            expected = mutator(image(), context=vector())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = mutator(image(), context=vector())
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)


# A setting for each site


def test_the_first_pattern_counts_and_an_ops_own_word_comes_before_it():
    class Row(ModelSpace):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(), conv(), ops.DynamicConv2d(4, 4, 3, delta="low_rank", rank=1)

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    per_site = {"a": {"delta": "none"}, "[ac]": {"delta": "scale", "base": "learned"}}
    mutator = DynamicWeightMutator(Row(), base="learned", per_site=per_site)
    found = {name: (recipe.base, recipe.delta, recipe.rank) for name, recipe in mutator.source.recipes.items()}
    assert found == {"a": ("learned", "none", 8), "b": ("learned", "full", 8), "c": ("learned", "low_rank", 1)}
    assert mutator.plan().num_generated == 0 + 148 + (4 + 36 + 4)
    assert mutator(torch.zeros(2, CHANNELS, 6, 6)).shape == (2, CHANNELS, 4, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"delta": "none"}, r"In `DynamicWeightMutator` the delta `none` has no base to change.*`learned`"),
        ({"delta": "scale"}, r"the delta `scale` has no base to change: `base` is `none`"),
        ({"delta": "low-rank"}, r"Unknown `delta` `low-rank` in `DynamicWeightMutator`. Did you mean `low_rank`"),
        ({"rank": 0}, r"`rank` in `DynamicWeightMutator` is 0, but must be 1 or more"),
        ({"rank": "4"}, r"`rank` in `DynamicWeightMutator` is '4' \(str\), but must be an int"),
        ({"per_site": {"op/*": {"dleta": "full"}}}, r"Unknown key `dleta` in .*`DynamicWeightMutator.per_site.op/\*`"),
        ({"per_site": {"op/*": {"delta": "scale"}}}, r"In `DynamicWeightMutator.per_site.op/\*` the delta `scale` has"),
        ({"per_site": {"op/*": "full"}}, r"per_site.op/\*` is 'full' \(str\), but must be a mapping"),
        (
            {"per_site": {"op/33": {}}},
            r"`per_site` has `op/33`, which matches none of the 2 sites. Did you mean `op/3x3`",
        ),
        ({"per_site": {"zzz": {}}}, r"matches none of the 2 sites. Known: `op/3x3`, `op/5x5`"),
    ],
)
def test_wrong_settings_are_refused_in_words(settings, words):
    with pytest.raises(ConfigError, match=words):
        DynamicWeightMutator(OneChoice(), **settings)


def test_an_ops_own_wrong_word_is_refused_where_it_stands():
    with pytest.raises(ConfigError, match="Unknown `delta` `ful` in `DynamicConv2d`. Did you mean `full`?"):
        ops.DynamicConv2d(1, 1, 1, delta="ful")

    class Own(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = ops.DynamicConv2d(1, 1, 1, delta="scale")

    with pytest.raises(ConfigError, match="In site `op` the delta `scale` has no base to change"):
        DynamicWeightMutator(Own())


def test_an_op_may_have_arguments_of_these_names_itself():
    class Ranked(ops.DynamicLinear):
        def __init__(self, features, rank):
            super().__init__(features, features)
            self.own = rank

    op = Ranked(3, rank=7, delta="low_rank")
    assert op.own == 7 and op.recipe == {"delta": "low_rank"}


def test_a_base_that_nobody_gives_is_refused():
    with pytest.raises(SpaceError, match="`base` is `given`, but no op of this space was lifted"):
        DynamicWeightMutator(OneChoice(), base="given")
    with pytest.raises(
        SpaceError, match="The base of site `op/3x3` is to be given, but its DynamicConv2d was not lift"
    ):
        DynamicWeightMutator(OneChoice(), base="learned", per_site={"op/3x3": {"base": "given"}})


def test_beside_lifted_ops_one_that_was_dynamic_before_learns_its_base():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), ops.DynamicConv2d(4, 4, 1))
    mutator = lift(network).mutator()
    assert [recipe.base for recipe in mutator.source.recipes.values()] == ["given", "learned"]
    assert mutator.source.factors.tolist() == pytest.approx([0.0, mutator.source.DELTA])


# Searched


class Searched(ModelSpace):
    """Each layer chooses how dynamic it is."""

    def __init__(self, kinds=("none", "scale", "low_rank", "full")):
        super().__init__()
        self.first = ops.DynamicConv2d(1, 8, 3, padding=1, base="learned", delta=nni.choice("first", list(kinds)))
        self.second = ops.DynamicSepConv(8, 8, 3, base="learned", rank=2, delta=nni.choice("second", list(kinds)))
        self.head = ops.DynamicLinear(8, 2, base="learned", delta="none")

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler])
def test_the_search_chooses_where_dynamics_pay(sampler, tmp_path):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Searched(), sampler=sampler(seed=0), context=VectorContext(5, 8))
    optimizer, sizes = torch.optim.Adam(mutator.parameters(), lr=1e-2), {}
    for _ in range(8):
        sample = mutator.reset()
        loss = mutator(image(), context=vector()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if sampler is RandomSampler:
            mutator.sampler.observe(sample, -loss.item())
        sizes[tuple(sample.values())] = mutator.plan().num_generated
    assert len(set(sizes.values())) > 3
    best = mutator.eval().export()
    network = mutator.freeze(best)
    with mutator.using(best):
        expected = mutator(image(), context=vector())
    torch.testing.assert_close(network(image(), vector()), expected)
    assert network.network.first.recipe["delta"] == best["first"]
    export.save(network, tmp_path)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image(), vector()), expected)


class SearchedFirst(Searched):
    """The first layer chooses alone."""

    def __init__(self):
        super().__init__(["none", "full"])
        self.second = ops.DynamicSepConv(8, 8, 3, base="learned", delta="none")


def test_gdas_learns_how_dynamic_a_layer_should_be():
    """Only weights of their own can tell the samples apart, for their input is the same."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(
        SearchedFirst(), sampler=GdasSampler(seed=0, learning_rate=0.1), context=VectorContext(5, 8)
    )
    architecture = mutator.sampler.optimizer()
    weights = torch.optim.Adam(mutator.space.parameters(), lr=1e-2)
    x, context = image(1).expand(8, -1, -1, -1), vector(8)
    for _ in range(100):
        mutator.reset()
        mutator.zero_grad()
        (mutator(x, context=context)[:, 0] - context[:, 0]).square().mean().backward()
        weights.step()
        architecture.step()
    assert mutator.status()["probabilities"]["first"]["full"] > 0.55


def test_a_mixture_of_static_and_dynamic_convolutions_runs_as_one():
    class Mixed(ModelSpace):
        def __init__(self):
            super().__init__()
            candidates = [
                ops.DynamicConv2d(16, 16, size, padding=size // 2, delta=delta)
                for size, delta in ((3, "none"), (3, "scale"), (5, "full"), (3, "low_rank"))
            ]
            self.op = LayerChoice(candidates, label="op")

        def forward(self, x):
            return self.op(x)

    mutator = DynamicWeightMutator(Mixed(), sampler=DartsSampler(), base="learned", context=VectorContext(5, 8))
    mutator.reset()
    x = torch.randn(3, 16, 32, 32)
    fused = mutator(x, context=vector())
    with without_fusion():
        torch.testing.assert_close(fused, mutator(x, context=vector()), rtol=1e-4, atol=1e-5)


# Files of before


def test_a_network_that_an_earlier_version_saved_is_read(tmp_path):
    network = make("learned", "full", controller=ChunkedController(hidden=16, signs=False)).freeze(SAMPLE)
    path = tmp_path / "network.json"

    def older(description):
        for site in description["sites"]:
            del site["recipe"]
            site["specs"] = [{key: one[key] for key in ("name", "shape", "fan_in", "kind")} for one in site["specs"]]
        description |= {"format": 1, "base": "learned"}
        del description["architecture_dim"]

    save_in_format_3(network, tmp_path, older)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image(), vector()), network(image(), vector()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 5}))
    with pytest.raises(ExportError, match=r"it has format 5, but this version reads \(1, 2, 3, 4\)"):
        nni_dynconv.load(tmp_path)


def test_a_depthwise_kernel_is_made_in_full_where_a_low_rank_is_asked_for():
    """Channels that share a few kernels used to be up to three times too large, or too small, at the start."""
    recipe = Recipe("none", "low_rank", rank=2)
    for op, whole in (
        (ops.DynamicConv2d(16, 16, 5, groups=16), True),
        (ops.DynamicSepConv(16, 16, 5, norm=None), True),
        (ops.DynamicConv2d(1, 16, 5), False),  # its kernels have one input, but are of one group
    ):
        site = Site("op", type(op).__name__, op.weight_specs())
        first = asked_of(site, recipe).specs[0]
        assert (first == site.specs[0]) == whole
