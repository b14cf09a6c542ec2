"""Every path runs on a device other than the CPU: tried without one, by tensors of the ``meta`` device."""

from __future__ import annotations

import pytest
import torch
from devices import META, OneDevice

from nni_dynconv.functional import conv1d, conv2d, conv3d, conv_transpose2d, explain, linear
from nni_dynconv.functional.calling import make_plan, run
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.planning.measuring import measure, measure_convolution
from nni_dynconv.functional.planning.modes import Setting, setting_of
from nni_dynconv.functional.planning.problem import Problem
from nni_dynconv.functional.planning.rules import possible

PLANAR = {
    "shared": ((4, 6, 9, 9), (6, 6, 3, 3), {}),
    "one sample": ((1, 6, 9, 9), (1, 6, 6, 3, 3), {}),
    "dense": ((4, 6, 9, 9), (4, 6, 6, 3, 3), {"stride": 2}),
    "pointwise": ((4, 6, 9, 9), (4, 6, 6, 1, 1), {}),
    "few outputs": ((4, 16, 9, 9), (4, 2, 16, 3, 3), {}),
    "depthwise": ((4, 6, 9, 9), (4, 6, 1, 5, 5), {"groups": 6, "padding": 2}),
    "blocks": ((4, 6, 9, 9), (2, 6, 6, 1, 1), {}),
    "unequal blocks": ((4, 6, 9, 9), (2, 6, 6, 3, 3), {"counts": (3, 1)}),
}
DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def given(*shapes):
    return [torch.randn(shape, device=META, requires_grad=True) for shape in shapes]


def check(compute, inputs):
    """Run forward and backward, with every tensor on the device."""
    with OneDevice():
        y = compute(*inputs)
        gradients = torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert y.device == META and all(one.device == META for one in gradients)


@pytest.mark.parametrize(("x", "weight", "options"), PLANAR.values(), ids=PLANAR)
@pytest.mark.parametrize("training", [True, False])
def test_every_path_that_tune_may_pick_runs_there(x, weight, options, training):
    geometry, inputs = measure_convolution(2, x, weight, **{**DEFAULTS, **options}), given(x, weight)
    names = possible(Problem(geometry, setting_of(*inputs)._replace(training=training)))
    assert "compiled" not in names
    for name in names:
        check(lambda x, weight, name=name: run(make_plan(geometry.axes, geometry, name), x, weight, None), inputs)


@pytest.mark.parametrize(
    "geometry",
    [
        measure(3, (4, 6, 5, 5, 5), (4, 6, 6, 3, 3, 3), None, 1, 1, 1, 1),
        measure(3, (4, 6, 5, 5, 5), (4, 6, 6, 1, 1, 1), None, 1, 0, 1, 1),
        measure(-2, (4, 6, 5, 5), (4, 6, 3, 4, 4), None, 2, 1, 0, 1, 1),
    ],
)
def test_so_does_every_path_over_other_axes(geometry):
    channels = (geometry.Cin, geometry.Cout) if geometry.transposed else (geometry.Cout, geometry.Cin)
    inputs = given((geometry.B, geometry.Cin, *geometry.size), (geometry.B, *channels, *geometry.kernel))
    for name in possible(Problem(geometry, setting_of(*inputs))):
        check(lambda x, weight, name=name: run(make_plan(geometry.axes, geometry, name), x, weight, None), inputs)


@pytest.mark.parametrize(
    ("function", "shapes", "options"),
    [
        (conv1d, ((6, 4, 9), (6, 4, 4, 3), (6, 4)), {"padding": "same"}),
        (conv2d, ((6, 4, 9, 9), (2, 4, 4, 3, 3), (6, 4)), {}),
        (conv2d, ((6, 4, 9, 9), (2, 4, 1, 4, 4), (2, 4)), {"groups": 4, "padding": "same", "counts": (5, 1)}),
        (conv3d, ((6, 4, 5, 5, 5), (6, 4, 4, 2, 2, 2), (4,)), {}),
        (conv_transpose2d, ((6, 4, 9, 9), (6, 4, 4, 4, 4), (6, 4)), {"stride": 2, "output_padding": 1}),
        (linear, ((6, 7, 4), (2, 5, 4), (2, 5)), {"counts": (5, 1)}),
    ],
)
def test_biases_and_blocks_stay_there(function, shapes, options):
    check(lambda *inputs: function(*inputs, **options), given(*shapes))


def test_the_compiled_kernels_refuse_tensors_that_a_cpu_cannot_read():
    """They would read addresses of another device's memory."""
    x, weight = given((2, 4, 9, 9), (2, 4, 1, 3, 3))
    assert setting_of(x, weight).kernels is False
    assert setting_of(torch.zeros(2, 4, 9, 9), weight).kernels is False
    operator = torch.ops.nni_dynconv.convolution.default
    for key in ("CUDA", "MPS", "XPU"):
        assert not torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)
    assert torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CPU")


@pytest.mark.parametrize(
    ("path", "x", "weight", "options"),
    [
        ("plain", *PLANAR["shared"]),
        ("grouped", *PLANAR["dense"]),
        ("matmul", *PLANAR["pointwise"]),
        ("grouped", *PLANAR["few outputs"]),
        ("grouped", *PLANAR["depthwise"]),
        ("stacked", *PLANAR["blocks"]),
        ("split", *PLANAR["unequal blocks"]),
        ("regrouped", (4, 64, 64, 64), (2, 6, 64, 3, 3), {}),
    ],
)
def test_the_rules_of_a_gpu_are_the_forms_that_need_no_tuning(path, x, weight, options):
    assert chosen(x, weight, **options, device="cuda:0")[1].path == path


def test_explain_names_the_device(capsys):
    explain((8, 4, 16, 16), (8, 4, 1, 5, 5), groups=4, device="cuda:1")
    assert "float32 on cuda:1" in capsys.readouterr().out


def test_a_gpu_and_the_cpu_are_measured_apart():
    geometry = measure_convolution(2, (4, 6, 9, 9), (4, 6, 6, 3, 3), **DEFAULTS)
    cpu, gpu = (Setting(device, torch.float32, training=True) for device in ("cpu", "cuda"))
    assert repr(Problem(geometry, cpu)) != repr(Problem(geometry, gpu))
