"""Low-rank weights in a network: ops that take factors get them, all else reads whole weights; nothing else changes."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import (
    BasisController,
    ChunkedController,
    DartsSampler,
    DynamicConv2d,
    DynamicLinear,
    DynamicWeightMutator,
    ExpertsController,
    LowRankController,
    OwnInputContext,
    RandomSampler,
    VectorContext,
    diagnose,
    lift,
)
from nni_dynconv.functional import COMPOSED, LowRank, calling, conv2d, deterministic, portable
from nni_dynconv.ops import DynamicSepConv
from nni_dynconv.search.smoothing import smoothness
from nni_dynconv.sites import scope

WIDE, MANY, SAMPLE = 32, 128, {"body": "wide"}


class Space(ModelSpace):
    """Convolutions of 32 channels, where applying pays, among others where it does not or cannot."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, WIDE, 3, padding=1)
        self.body = LayerChoice(
            {
                "wide": DynamicConv2d(WIDE, WIDE, 3, padding=1),
                "wider": DynamicConv2d(WIDE, WIDE, 5, padding=2),
                "grouped": DynamicConv2d(WIDE, WIDE, 3, padding=1, groups=2),
                "separable": DynamicSepConv(WIDE, WIDE, 3),
            },
            label="body",
        )
        self.last = DynamicConv2d(WIDE, WIDE, 3, padding=1, bias=False)

    def forward(self, x):
        return self.last(self.body(self.stem(x).relu()).relu())


class Maps(ModelSpace):
    """Linear maps: of tokens, and of one vector a sample; the last is too small."""

    def __init__(self):
        super().__init__()
        self.tokens, self.vector, self.last = (DynamicLinear(MANY, out) for out in (MANY, MANY, 3))

    def forward(self, x):
        return self.last(self.vector(self.tokens(x).relu().mean(1)).relu())


class Plain(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(1, WIDE, 3, padding=1), nn.Conv2d(WIDE, WIDE, 3, padding=1)

    def forward(self, x):
        return self.last(self.stem(x).relu())


PRODUCTS = {
    "delta": {"delta": "low_rank", "base": "none"},
    "delta, learned base": {"delta": "low_rank", "base": "learned"},
    "controller": {"controller": lambda: LowRankController(rank=2, hidden=16), "base": "none"},
    "controller, learned base": {"controller": lambda: LowRankController(rank=2, hidden=16), "base": "learned"},
    "experts, low-rank delta": {
        "controller": lambda: ExpertsController(experts=3),
        "delta": "low_rank",
        "base": "none",
    },
    "both": {"controller": lambda: LowRankController(rank=1, hidden=16), "delta": "low_rank", "base": "learned"},
}
OTHERS = {
    "scale": {"delta": "scale", "base": "learned"},
    "experts": {"controller": lambda: ExpertsController(experts=3), "base": "none"},
    "experts, learned base": {"controller": lambda: ExpertsController(experts=3), "base": "learned"},
    "basis": {"controller": lambda: BasisController(basis=3, hidden=16), "base": "learned"},
}
KINDS = {**PRODUCTS, **OTHERS}
products = pytest.mark.parametrize("kind", PRODUCTS.values(), ids=PRODUCTS)
others = pytest.mark.parametrize("kind", OTHERS.values(), ids=OTHERS)
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def make(kind, space=Space, sampler=RandomSampler, context=None):
    torch.manual_seed(0)
    options = {"controller": lambda: ChunkedController(hidden=16), "rank": 2, **kind}
    options["controller"] = options["controller"]()
    context = VectorContext(5, 8) if context is None else context
    return DynamicWeightMutator(space(), sampler=sampler(seed=0), context=context, **options).eval()


def given(batch=4):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 1, 8, 8, generator=generator), torch.randn(batch, 5, generator=generator)


@pytest.fixture
def uses(monkeypatch):
    """How often factors were applied."""
    found = []

    def apply_factors(*arguments):
        found.append(arguments)
        return plain(*arguments)

    for paths in calling.PATHS.values():
        plain = paths["applied"]
        monkeypatch.setitem(paths, "applied", apply_factors)
    calling._plan_once.cache_clear()
    yield found
    calling._plan_once.cache_clear()


def step(mutator, run):
    mutator.zero_grad()
    y = run()
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return {"y": y.detach(), **{name: p.grad for name, p in mutator.named_parameters() if p.grad is not None}}


def check_step(mutator, run, uses, monkeypatch):
    """A step that applies factors is the step that forms every kernel."""
    found, applied = step(mutator, run), len(uses)
    with monkeypatch.context() as patch:
        for op in (DynamicConv2d, DynamicLinear, DynamicSepConv):
            patch.setattr(op, "takes_factors", False)
        expected = step(mutator, run)
    assert len(uses) == applied
    scale = {name: max(1.0, one.abs().max().item()) for name, one in expected.items()}
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(
        {name: one / scale[name] for name, one in found.items()},
        {name: one / scale[name] for name, one in expected.items()},
        **close,
    )
    return applied


@products
@pytest.mark.parametrize("body", ["wide", "grouped", "separable"])
def test_a_step_that_applies_factors_is_the_step_that_forms_kernels(kind, body, uses, monkeypatch):
    mutator, (x, context) = make(kind), given()

    def run():
        with mutator.using({"body": body}):
            return mutator(x, context=context)

    mixes = body == "separable" and kind["base"] == "none"  # its 1x1 kernel, where no base is convolved beside it
    assert check_step(mutator, run, uses, monkeypatch) == (2 if body == "wide" or mixes else 1)


@others
@pytest.mark.parametrize("body", ["wide", "grouped", "separable"])
def test_a_step_with_scales_or_mixtures_is_the_step_that_forms_kernels(kind, body, uses, monkeypatch):
    mutator, (x, context) = make(kind), given()

    def run():
        with mutator.using({"body": body}):
            return mutator(x, context=context)

    # of a scaled base all but those of few values, the stem and a depthwise kernel; of mixtures none on images so large
    assert check_step(mutator, run, uses, monkeypatch) == (2 if "delta" in kind else 0)


@others
@pytest.mark.parametrize("index", [None, [0, 1, 1, 1, 0, 1, 0, 1]])
def test_linear_maps_with_scales_or_mixtures(kind, index, uses, monkeypatch):
    mutator, (_, context) = make(kind, space=Maps), given(8)
    mutator.reset()
    x = torch.randn(8, 5, MANY, generator=torch.Generator().manual_seed(4))
    options = {"context": context} if index is None else {"context": context[:2], "index": torch.tensor(index)}
    assert check_step(mutator, lambda: mutator(x, **options), uses, monkeypatch) == 3


@products
@pytest.mark.parametrize("index", [None, [0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 1, 0, 1]])
def test_linear_maps_apply_factors_too(kind, index, uses, monkeypatch):
    mutator, (_, context) = make(kind, space=Maps), given(8)
    mutator.reset()
    x = torch.randn(8, 5, MANY, generator=torch.Generator().manual_seed(4))
    options = {"context": context}
    if index is not None:
        options = {"context": context[:2], "index": torch.tensor(index)}
    applied = check_step(mutator, lambda: mutator(x, **options), uses, monkeypatch)
    blocks_are_equal = index is None or index.count(0) == 4
    assert applied == 2 * blocks_are_equal


@pytest.mark.parametrize("mode", [portable, deterministic])
def test_modes_form_the_weights_of_a_network(mode, uses):
    mutator, (_, context) = make(KINDS["delta, learned base"], space=Maps), given()
    mutator.reset()
    x = torch.randn(4, 5, MANY)
    expected, applied = mutator(x, context=context), len(uses)
    with mode():
        torch.testing.assert_close(mutator(x, context=context), expected, rtol=1e-4, atol=1e-5)
    assert len(uses) == applied == 2


def test_an_export_of_linear_maps_takes_any_batch():
    mutator, (_, context) = make(KINDS["delta, learned base"], space=Maps), given(7)
    mutator.reset()
    network, x, batch = mutator.freeze({}), torch.randn(7, 5, MANY), torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (x[:3], context[:3]), dynamic_shapes=({0: batch}, {0: batch}))
    torch.testing.assert_close(program.module()(x, context), network(x, context), rtol=1e-4, atol=1e-5)


def test_given_bases_too(uses, monkeypatch):
    torch.manual_seed(0)
    options = {"controller": ChunkedController(hidden=16), "context": VectorContext(5, 8), "rank": 2}
    space = lift(Plain(), where=[nn.Conv2d]).space
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(0), base="given", delta="low_rank", **options)
    nn.init.uniform_(mutator.source.factors, 0.2, 0.4)
    mutator.reset()
    x, context = given()
    assert check_step(mutator, lambda: mutator(x, context=context), uses, monkeypatch) == 1


@kinds
def test_what_reads_weights_gets_tensors(kind):
    mutator, (_, context) = make(kind), given()
    with mutator.using(SAMPLE, context=context):
        opened = scope.current_of(mutator.source)
        read = opened.weights("last")
        assert isinstance(opened.anew().weights("last", factors=True)["weight"], COMPOSED)
    (made,) = mutator.source.make([mutator.source.sites["last"]], mutator.context(context))
    torch.testing.assert_close(read, made)


@kinds
def test_blocks_of_samples_that_share_a_context(kind, uses, monkeypatch):
    mutator, (x, context) = make(kind), given()
    index = torch.tensor([0, 1, 1, 0])

    def run():
        with mutator.using(SAMPLE):
            return mutator(x, context=context[:2], index=index)

    with mutator.using(SAMPLE):
        expected = mutator(x, context=context[index])
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-4)
    check_step(mutator, run, uses, monkeypatch)


def test_a_mixture_reads_whole_kernels(monkeypatch, uses):
    mutator, (x, context) = make(KINDS["delta, learned base"], sampler=DartsSampler), given(8)
    mutator.reset()
    check_step(mutator, lambda: mutator(x, context=context), uses, monkeypatch)


def test_weights_of_an_own_input(uses, monkeypatch):
    mutator, (x, _) = make(KINDS["delta, learned base"], context=OwnInputContext(8)), given()

    def run():
        with mutator.using(SAMPLE):
            return mutator(x)

    assert check_step(mutator, run, uses, monkeypatch) == 2


def test_checkpointed_activations(uses, monkeypatch):
    mutator, (x, context) = make(KINDS["delta"]), given()
    network = mutator.freeze(SAMPLE)

    def run():
        return checkpoint(network, x, context, use_reentrant=False)

    assert check_step(network, run, uses, monkeypatch) == 4  # two, and again in the backward


def test_autocast(uses):
    mutator, (x, context) = make(KINDS["delta, learned base"]), given()
    with mutator.using(SAMPLE):
        expected = mutator(x, context=context)
        with torch.autocast("cpu", torch.bfloat16):
            found = mutator(x, context=context)
    assert len(uses) == 4
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


@kinds
def test_a_frozen_network_applies_them_too(kind, uses):
    mutator, (x, context) = make(kind), given()
    with mutator.using(SAMPLE):
        expected = mutator(x, context=context)
    applied = len(uses)
    torch.testing.assert_close(mutator.freeze(SAMPLE)(x, context), expected, rtol=1e-4, atol=1e-5)
    assert len(uses) == 2 * applied


def test_a_diagnosis_and_smoothness_see_tensors():
    mutator, (x, context) = make(KINDS["controller"]), given()
    mutator.reset()
    with mutator.using(SAMPLE):
        assert smoothness(mutator, context, SAMPLE).isfinite()
    assert diagnose(mutator, [((x, context), torch.zeros(4, WIDE, 8, 8))], nn.functional.mse_loss) is not None


def test_a_controller_that_makes_its_own_values_is_asked_for_them(uses):
    class Doubled(LowRankController):
        def generate(self, sites, context):
            return [2 * one for one in super().generate(sites, context)]

    (x, context), outputs = given(), []
    for controller in (LowRankController, Doubled):
        mutator = make({"controller": lambda one=controller: one(rank=2, hidden=16), "base": "none"})
        with mutator.using(SAMPLE, context=context):
            outputs.append(mutator.space.stem(x))
    torch.testing.assert_close(outputs[1], 2 * outputs[0])


class Own(DynamicConv2d):
    """A user's op, which knows tensors only."""

    def compute(self, x, weights, counts=None):
        self.seen = type(weights["weight"])
        return super().compute(x, weights, counts)


class OwnThatTakesFactors(Own):
    takes_factors = True

    def compute(self, x, weights, counts=None):
        self.seen = type(weights["weight"])
        return conv2d(x, weights["weight"], weights["bias"], padding=1, counts=counts)


@pytest.mark.parametrize(("op", "seen"), [(Own, torch.Tensor), (OwnThatTakesFactors, LowRank)])
def test_a_users_op_sees_factors_only_if_it_says_that_it_takes_them(op, seen):
    class WithOwn(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = op(WIDE, WIDE, 3, padding=1)

        def forward(self, x):
            return self.op(x)

    mutator = make(KINDS["delta"], space=WithOwn)
    mutator.reset()
    mutator(torch.randn(4, WIDE, 8, 8), context=given()[1])
    assert mutator.space.op.seen is seen


def test_an_op_takes_factors_as_params_and_forms_them_where_it_must():
    weight = LowRank(torch.randn(4, WIDE, 2), torch.randn(4, 2, WIDE, 3, 3))
    x = torch.randn(4, WIDE, 8, 8)
    for op in (DynamicConv2d, Own):
        y = op(WIDE, WIDE, 3, padding=1, bias=False)(x, {"weight": weight})
        torch.testing.assert_close(y, conv2d(x, weight.whole(), padding=1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_scales_are_compiled_and_exported_as_static_layers_and_a_factor():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Flatten(1), nn.Linear(4 * 12 * 12, 5)]
    lifted = lift(nn.Sequential(*layers), base="learned")
    mutator = lifted.mutator(sampler=RandomSampler(0), context=VectorContext(5, 8), delta="scale")
    mutator.reset()
    network, x, context = mutator.freeze({}).eval(), torch.randn(7, 3, 8, 8), torch.randn(7, 5)
    expected, close = network(x, context), {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x, context), expected, **close)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (x[:3], context[:3]), dynamic_shapes=({0: batch}, {0: batch}))
    torch.testing.assert_close(program.module()(x, context), expected, **close)
    called = [str(node.target) for node in program.graph.nodes]
    assert sum("conv" in one for one in called) == 2 and not any("bmm" in one for one in called)
