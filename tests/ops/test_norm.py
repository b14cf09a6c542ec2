"""Normalisations with a generated affine map against torch's functions and layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nni_dynconv import DynamicWeightMutator, ops

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import ModelSpace

from nni_dynconv.ops import DynamicBatchNorm2d, DynamicGroupNorm, DynamicInstanceNorm1d, DynamicLayerNorm
from nni_dynconv.testing.suites import OpSuite

MEAN, VAR = torch.tensor([0.5, -0.5]), torch.tensor([2.0, 0.5])


class TestBatchNorm(OpSuite):
    def make(self):
        op = DynamicBatchNorm2d(2).eval()
        op.norm.running_mean.copy_(MEAN)
        op.norm.running_var.copy_(VAR)
        return op

    def example(self, batch):
        return torch.randn(batch, 2, 3, 4, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.batch_norm(x, MEAN.to(x), VAR.to(x), 1 + weights["scale"], weights["shift"])


class TestGroupNorm(TestBatchNorm):
    def make(self):
        return DynamicGroupNorm(2, 4)

    def example(self, batch):
        return torch.randn(batch, 4, 3, generator=torch.Generator().manual_seed(0))

    def reference(self, x, weights):
        return F.group_norm(x, 2, 1 + weights["scale"], weights["shift"])


class TestInstanceNorm(TestGroupNorm):
    def make(self):
        return DynamicInstanceNorm1d(4)

    def reference(self, x, weights):
        return F.instance_norm(x, None, None, 1 + weights["scale"], weights["shift"])


class TestLayerNorm(TestGroupNorm):
    def make(self):
        return DynamicLayerNorm((4, 3))

    def reference(self, x, weights):
        return F.layer_norm(x, (4, 3), 1 + weights["scale"], weights["shift"])


class TestLayerNormWithoutShift(TestGroupNorm):
    def make(self):
        return DynamicLayerNorm(3, bias=False)

    def reference(self, x, weights):
        return F.layer_norm(x, (3,), 1 + weights["scale"])


STATIC = {
    **{
        f"{kind}{rank}d": (f"{kind}{rank}d", (4,), rank) for kind in ("BatchNorm", "InstanceNorm") for rank in (1, 2, 3)
    },
    "GroupNorm": ("GroupNorm", (2, 4), 2),
    "LayerNorm": ("LayerNorm", (5,), 2),
}


@pytest.mark.parametrize(("name", "arguments", "rank"), STATIC.values(), ids=STATIC)
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_static_layer_with_its_weights(name, arguments, rank, training):
    affine = {"affine": True} if name.startswith("Instance") else {}
    layer = getattr(nn, name)(*arguments, **affine).train(training)
    op = getattr(ops, f"Dynamic{name}")(*arguments).train(training)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    weights = {"scale": layer.weight - 1, "shift": layer.bias}
    for _ in range(2):  # running statistics move alike
        x = torch.randn(3, 4, *[5] * rank)
        torch.testing.assert_close(op(x, weights), layer(x), rtol=1e-4, atol=1e-5)
    ours, theirs = dict(op.norm.named_buffers()), dict(layer.named_buffers())
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key])


def test_batch_statistics_are_those_of_the_batch_and_not_of_a_block():
    op, x, flat = DynamicBatchNorm2d(2), torch.randn(5, 2, 3, 4), torch.randn(2, 4)
    torch.testing.assert_close(op(x, flat, [3, 2]), op(x, flat[[0, 0, 0, 1, 1]]), rtol=1e-4, atol=1e-5)


class Normalised(ModelSpace):
    def __init__(self):
        super().__init__()
        self.norm = DynamicGroupNorm(1, 64)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize("base", ["none", "learned"])
def test_a_generated_affine_map_starts_near_the_identity(base):
    torch.manual_seed(0)
    mutator, x = DynamicWeightMutator(Normalised(), base=base), torch.randn(4, 64, 8)
    y = mutator(x)
    assert 0.01 < float((y - F.group_norm(x, 1)).detach().square().mean().sqrt()) < 0.3
