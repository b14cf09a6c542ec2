"""Every op in every form: supernet, frozen, loaded, in ONNX Runtime for 1, 3 and 17 samples, and baked."""

from __future__ import annotations

import pytest
import torch
from spaces import vector
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import ModelSpace

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, OwnInputContext, PatchContext, VectorContext, export, ops

OPS = {
    "conv1d": (lambda: ops.DynamicConv1d(4, 6, 3, padding=1, groups=2), (4, 9)),
    "conv2d": (lambda: ops.DynamicConv2d(4, 6, (3, 5), stride=2, dilation=(2, 1), bias=False), (4, 9, 9)),
    "conv2d, same": (lambda: ops.DynamicConv2d(4, 6, 4, padding="same"), (4, 9, 9)),
    "conv2d, reflect": (lambda: ops.DynamicConv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 6, 6)),
    "conv2d, depthwise": (lambda: ops.DynamicConv2d(4, 4, 3, padding=1, groups=4), (4, 6, 6)),
    "conv3d": (lambda: ops.DynamicConv3d(2, 3, 3, padding=(1, 0, 1)), (2, 5, 5, 5)),
    "transposed1d": (lambda: ops.DynamicConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 5)),
    "transposed2d": (lambda: ops.DynamicConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 6)),
    "transposed3d": (lambda: ops.DynamicConvTranspose3d(2, 3, 3, dilation=2), (2, 3, 3, 3)),
    "linear": (lambda: ops.DynamicLinear(5, 3), (4, 5)),
    "separable": (lambda: ops.DynamicSepConv(4, 6, 3, stride=2), (4, 9, 9)),
    "dilated": (lambda: ops.DynamicDilConv(4, 6, 5, norm=None), (4, 9, 9)),
    "patches": (lambda: ops.DynamicPatchConv2d(4, 6, 3, grid=(2, 3), stride=2, padding=1), (4, 9, 9)),
    "batch norm 1d": (lambda: ops.DynamicBatchNorm1d(4), (4, 6)),
    "batch norm 2d": (lambda: ops.DynamicBatchNorm2d(4), (4, 6, 6)),
    "batch norm 3d": (lambda: ops.DynamicBatchNorm3d(4), (4, 3, 4, 4)),
    "instance norm 1d": (lambda: ops.DynamicInstanceNorm1d(4), (4, 6)),
    "instance norm 2d": (lambda: ops.DynamicInstanceNorm2d(4), (4, 6, 6)),
    "instance norm 3d": (lambda: ops.DynamicInstanceNorm3d(4), (4, 3, 4, 4)),
    "group norm": (lambda: ops.DynamicGroupNorm(2, 4), (4, 6)),
    "layer norm": (lambda: ops.DynamicLayerNorm(6), (4, 6)),
    "any module": (lambda: ops.DynamicCall(nn.PReLU(4)), (4, 6)),
}
ORDINARY = "static"


class Alone(ModelSpace):
    def __init__(self, op):
        super().__init__()
        self.op = op

    def forward(self, x):
        return self.op(x)


def drawn(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


def written(op, encoder, shape, context, folder):
    """Return a network as it is loaded, compared with what it was in the supernet and frozen."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Alone(op=op), context=encoder, base="learned").eval()
    with torch.no_grad():
        mutator.source.factors.fill_(0.5)
    network, x = mutator.freeze({}), drawn(4, *shape)
    export.save(network, folder, example=(x,) if context is None else (x, context))
    loaded = nni_dynconv.load(folder)
    wanted = mutator(x) if context is None else mutator(x, context=context)
    for one in (network, loaded):
        torch.testing.assert_close(one(x) if context is None else one(x, context), wanted, rtol=1e-4, atol=1e-5)
    return loaded, export.example_in(folder)


def test_every_op_is_tried():
    tried = {type(make()).__name__ for make, _ in OPS.values()}
    assert tried == {*ops.__all__, "DynamicCall"} - {"DynamicOp"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dynamic", "grouped", "baked", ORDINARY])
@pytest.mark.parametrize("name", OPS)
def test_every_op_is_the_same_in_every_form(name, form, tmp_path):
    pytest.importorskip("onnxscript")
    make, shape = OPS[name]
    network, shown = written(make(), VectorContext(5, 8), shape, vector(4), tmp_path)
    if form == ORDINARY:
        assert export.export_static(network, tmp_path / "static", shown).error < 1e-6
    else:
        assert export.export_onnx(network, tmp_path / "model.onnx", shown, form, batch=3).error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dynamic", "grouped", "baked"])
def test_weights_of_each_patch_are_the_same_in_every_form(form, tmp_path):
    pytest.importorskip("onnxscript")
    op = ops.DynamicPatchConv2d(4, 6, 3, grid=2, padding=1)
    network, shown = written(op, PatchContext(3, 8, grid=2), (4, 8, 8), drawn(4, 3, 8, 8), tmp_path)
    assert export.export_onnx(network, tmp_path / "model.onnx", shown, form, batch=3).error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dynamic", "grouped"])
@pytest.mark.parametrize("name", ["conv2d", "patches", "linear", "batch norm 2d"])
def test_weights_of_each_own_input_are_the_same_in_every_form(name, form, tmp_path):
    pytest.importorskip("onnxscript")
    make, shape = OPS[name]
    network, shown = written(make(), OwnInputContext(8), shape, None, tmp_path)
    assert export.export_onnx(network, tmp_path / "model.onnx", shown, form, batch=3).error < 1e-4
