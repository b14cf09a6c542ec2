"""`DynamicPatchConv2d`: an op like any other, weights for patches, and where they come from in a network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

import nni_dynconv
from nni_dynconv import (
    DynamicConv2d,
    DynamicFlopsProfiler,
    DynamicPatchConv2d,
    DynamicWeightMutator,
    LowRankController,
    OwnInputContext,
    PatchContext,
    VectorContext,
    export,
)
from nni_dynconv.errors import ParamsError, ShapeError
from nni_dynconv.export import has_onnx
from nni_dynconv.testing.suites import OpSuite

PATCHES, CONV = {"body": "patches"}, {"body": "conv"}


class TestPatchConv(OpSuite):
    def make(self):
        return DynamicPatchConv2d(2, 4, 3, grid=(2, 3), stride=2, padding=1)

    def example(self, batch):
        return torch.randn(batch, 2, 6, 5, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.conv2d(x, weights["weight"], weights["bias"], 2, 1)


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(3, 8, 3, padding=1)
        patches = DynamicPatchConv2d(8, 8, 3, grid=(2, 3), padding=1)
        self.body = LayerChoice({"patches": patches, "conv": DynamicConv2d(8, 8, 3, padding=1)}, label="body")

    def forward(self, x):
        return self.body(self.stem(x))


KINDS = {
    "full": {},
    "low rank on a base": {"base": "learned", "delta": "low_rank", "rank": 2},
    "scales": {"base": "learned", "delta": "scale"},
    "factors": {"controller": LowRankController},
}


def frozen(context, **options):
    torch.manual_seed(0)
    made = {name: value() if name == "controller" else value for name, value in options.items()}
    return DynamicWeightMutator(Space(), context=context, **made).freeze(PATCHES).eval()


def test_weights_of_patches_are_told_by_their_axes():
    op, x = DynamicPatchConv2d(2, 4, 3, grid=(2, 2), padding=1), torch.randn(3, 2, 8, 8)
    weight, bias = torch.randn(3, 2, 2, 4, 2, 3, 3), torch.randn(2, 2, 4)
    y = op(x, {"weight": weight, "bias": bias})
    lower = F.conv2d(x[1:2], weight[1, 1, 0], bias[1, 0], padding=1)
    torch.testing.assert_close(y[1:2, :, 4:, :4], lower[:, :, 4:, :4])


def test_weights_for_another_grid_are_refused():
    op, x = DynamicPatchConv2d(2, 4, 3, grid=2, bias=False), torch.randn(3, 2, 8, 8)
    with pytest.raises(
        ParamsError, match=r"`weight` must be \(4, 2, 3, 3\), for patches \(2, 2, .*, but is \(3, 2, 4, "
    ):
        op(x, {"weight": torch.zeros(3, 2, 4, 4, 2, 3, 3)})
    with pytest.raises(ShapeError, match=r"DynamicPatchConv2d.*`grid` is 0, but must be one or two whole numbers of 1"):
        DynamicPatchConv2d(2, 4, 3, grid=0)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_map_of_codes_makes_a_set_for_each_patch(kind):
    net, (x, context) = frozen(PatchContext(3, 8, grid=4), **kind), torch.randn(2, 4, 3, 12, 12)
    y = net(x, context)
    alone = torch.cat([net(x[b : b + 1], context[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(alone, y, rtol=1e-3, atol=1e-3)
    shared = torch.cat([net(x[b : b + 1], context[:1]) for b in range(4)])
    torch.testing.assert_close(net(x, context[:1]), shared, rtol=1e-3, atol=1e-3)
    index = torch.tensor([1, 0, 1, 1])
    torch.testing.assert_close(net(x, context, index=index), net(x, context[index]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "encoder", [lambda: PatchContext(3, 8, grid=4), lambda: OwnInputContext(8)], ids=["map", "own"]
)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_supernet_makes_the_sets_that_its_frozen_network_makes(kind, encoder):
    """It used to make one set for all patches of a map, and to be trained so; frozen, it made one for each."""
    torch.manual_seed(0)
    options = {name: one() if name == "controller" else one for name, one in kind.items()}
    mutator = DynamicWeightMutator(Space(), context=encoder(), **options).eval()
    if kind.get("base") is not None:  # a delta starts small beside it
        mutator.source.factors.data.fill_(0.5)
    context = () if mutator.source.own_input is not None else (torch.randn(2, 3, 12, 12),)
    x, sample = torch.randn(2, 3, 12, 12), {"body": "patches"}
    with mutator.using(sample):
        y = mutator(x, **({"context": context[0]} if context else {}))
    torch.testing.assert_close(mutator.freeze(sample)(x, *context), y)


def test_a_patch_sees_its_own_part_of_the_context():
    """Of a context that changes in one corner, far from others, only that corner's weights change: else it is none."""
    op = frozen(PatchContext(3, 8, grid=4), base="learned", delta="full")
    made = {}
    weights = type(op.source)._in_patches

    def keep(source, site, codes, lead):
        made[site.name] = codes
        return weights(source, site, codes, lead)

    op.source._in_patches = keep.__get__(op.source)
    x, context = torch.randn(1, 3, 48, 48), torch.randn(1, 3, 48, 48)
    op(x, context)
    (before,) = made.values()
    context = context.clone()
    context[:, :, :8, :8] += 3
    op(x, context)
    (after,) = made.values()
    assert before.shape == (6, op.source.code_dim) and not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1:], after[1:])


@pytest.mark.parametrize("context", [PatchContext(3, 8, grid=4), OwnInputContext(8)], ids=["map", "own input"])
def test_every_part_learns(context):
    mutator = DynamicWeightMutator(Space(), context=context)
    x = torch.randn(4, 3, 12, 12)
    with mutator.using(PATCHES):
        y = mutator(x) if isinstance(context, OwnInputContext) else mutator(x, context=x)
    y.square().sum().backward()
    for name, one in mutator.space.weight_source.named_parameters():
        unused = "body/conv" in name or (isinstance(context, OwnInputContext) and ".2." in name)
        assert unused or one.grad is not None, name


def test_codes_without_places_make_a_convolution_like_any_other():
    torch.manual_seed(0)
    net = frozen(VectorContext(5, 8))
    x, context = torch.randn(3, 3, 12, 12), torch.randn(3, 5)
    seen = []
    op = next(one for one in net.modules() if isinstance(one, DynamicPatchConv2d))
    compute = op.compute
    op.compute = lambda x, weights, *rest: seen.append(weights["weight"].shape) or compute(x, weights, *rest)
    net(x, context)
    assert seen == [(3, 8, 8, 3, 3)]


@pytest.mark.parametrize("own", [False, True], ids=["map", "own input"])
def test_it_is_saved_and_loaded(own, tmp_path):
    net = frozen(OwnInputContext(8) if own else PatchContext(3, 8, grid=4))
    call = (torch.randn(3, 3, 12, 12),) if own else (torch.randn(3, 3, 12, 12), torch.randn(3, 3, 12, 12))
    y = net(*call)
    export.save(net, tmp_path / "net")
    torch.testing.assert_close(nni_dynconv.load(tmp_path / "net")(*call), y)


def test_one_context_can_be_baked_in():
    net, (x, context) = frozen(PatchContext(3, 8, grid=4)), torch.randn(2, 2, 3, 12, 12)
    baked = export.bake(net, context[:1])
    torch.testing.assert_close(baked(x), net(x, context[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not has_onnx(), reason="the extra `onnx` is not installed")
def test_it_runs_in_onnx_for_any_number_of_samples(tmp_path):
    net, x = frozen(PatchContext(3, 8, grid=4)), torch.randn(3, 3, 12, 12)
    net(x, x)
    export.save(net, tmp_path / "net")
    export.export_onnx(net, tmp_path / "net.onnx", export.example_in(tmp_path / "net"))  # compares with torch


def test_a_set_for_each_patch_is_counted():
    x = torch.zeros(1, 3, 12, 12)
    plain, maps = (
        DynamicFlopsProfiler(Space(), x, context=one) for one in (VectorContext(5, 8), PatchContext(3, 8, grid=4))
    )
    assert plain.profile(PATCHES) == plain.profile(CONV)
    assert maps.profile(CONV) == plain.profile(CONV)
    assert maps.profile(PATCHES) > maps.profile(CONV)
