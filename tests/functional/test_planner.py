"""The rules that pick a path, and what `explain` says of them."""

from __future__ import annotations

import pytest
import torch

from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import explain, library, portable, without_kernels
from nni_dynconv.functional.planning.convolutions import choose, possible
from nni_dynconv.functional.planning.measuring import measure, measure_convolution, measure_transposed
from nni_dynconv.functional.planning.modes import Setting

CPU = Setting("cpu", torch.float32, training=True)
FORWARD = CPU._replace(training=False)
KERNELS = CPU._replace(kernels=True)
RULES = {
    "shared": ("plain", (8, 4, 16, 16), (4, 4, 3, 3), {}, CPU),
    "dense": ("grouped", (8, 8, 16, 16), (8, 4, 8, 3, 3), {}, CPU),
    "dense and tiny": ("unfold", (8, 4, 8, 8), (8, 4, 4, 3, 3), {}, CPU),
    "dense, with many patches": ("grouped", (8, 8, 8, 8), (8, 8, 8, 5, 5), {"padding": 2}, CPU),
    "dense and tiny, not measured": ("grouped", (8, 4, 8, 8), (8, 4, 4, 3, 3), {}, CPU._replace(device="cuda")),
    "one sample": ("single", (1, 4, 16, 16), (1, 4, 4, 3, 3), {}, CPU),
    "few outputs, narrow": ("folded", (8, 16, 32, 32), (8, 3, 16, 5, 5), {"padding": 2}, FORWARD),
    "few outputs, too narrow": ("grouped", (8, 8, 32, 32), (8, 3, 8, 5, 5), {"padding": 2}, CPU),
    "four outputs": ("folded", (8, 16, 32, 32), (8, 4, 16, 3, 3), {"padding": 1}, CPU),
    "four outputs, narrow": ("grouped", (8, 8, 32, 32), (8, 4, 8, 3, 3), {"padding": 1}, CPU),
    "four outputs, forward": ("grouped", (8, 16, 32, 32), (8, 4, 16, 3, 3), {"padding": 1}, FORWARD),
    "four outputs, forward, wide": ("folded", (8, 64, 32, 32), (8, 4, 64, 3, 3), {"padding": 1}, FORWARD),
    "five outputs": ("grouped", (8, 64, 32, 32), (8, 5, 64, 3, 3), {"padding": 1}, CPU),
    "strided": ("looped", (8, 32, 56, 56), (8, 32, 32, 3, 3), {"stride": 2}, CPU),
    "strided, forward": ("grouped", (8, 32, 56, 56), (8, 32, 32, 3, 3), {"stride": 2}, FORWARD),
    "strided, small": ("grouped", (8, 32, 32, 32), (8, 32, 32, 3, 3), {"stride": 2}, CPU),
    "strided, many small samples": ("grouped", (512, 32, 16, 16), (512, 32, 32, 3, 3), {"stride": 2}, CPU),
    "strided, narrow": ("grouped", (32, 16, 56, 56), (32, 16, 16, 3, 3), {"stride": 2}, CPU),
    "strided, in groups": ("grouped", (8, 32, 56, 56), (8, 32, 16, 3, 3), {"stride": 2, "groups": 2}, CPU),
    "no sample": ("unfold", (0, 4, 16, 16), (0, 4, 4, 3, 3), {}, CPU),
    "1x1": ("matmul", (8, 4, 16, 16), (8, 4, 4, 1, 1), {}, CPU),
    "1x1, padded": ("grouped", (8, 8, 16, 16), (8, 4, 8, 1, 1), {"padding": 1}, CPU),
    "1x1, portable": ("unfold", (8, 4, 16, 16), (8, 4, 4, 1, 1), {}, CPU._replace(portable=True)),
    "depthwise 3x3": ("grouped", (8, 4, 16, 16), (8, 4, 1, 3, 3), {"groups": 4}, CPU),
    "depthwise 5x5": ("depthwise", (8, 4, 16, 16), (8, 4, 1, 5, 5), {"groups": 4}, CPU),
    "depthwise 5x5, forward": ("grouped", (8, 4, 16, 16), (8, 4, 1, 5, 5), {"groups": 4}, CPU._replace(training=False)),
    "depthwise 5x5, strided": ("grouped", (8, 4, 16, 16), (8, 4, 1, 5, 5), {"groups": 4, "stride": 2}, CPU),
    "depthwise 5x5, much padded": ("grouped", (8, 4, 16, 16), (8, 4, 1, 5, 5), {"groups": 4, "padding": 5}, CPU),
    "depthwise, dilated": ("depthwise", (8, 4, 16, 16), (8, 4, 1, 3, 3), {"groups": 4, "dilation": 2}, CPU),
    "depthwise, large": ("depthwise_in_chunks", (128, 64, 32, 32), (128, 64, 1, 5, 5), {"groups": 64}, CPU),
    "transformed": ("grouped", (8, 4, 16, 16), (8, 4, 1, 5, 5), {"groups": 4}, CPU._replace(transformed=True)),
    "compiled": ("compiled", (8, 4, 16, 16), (8, 4, 1, 3, 3), {"groups": 4}, KERNELS),
    "compiled, shared": ("compiled", (8, 4, 16, 16), (4, 1, 3, 3), {"groups": 4}, KERNELS),
    "kernels, no sample": ("unfold", (0, 8, 16, 16), (0, 8, 8, 3, 3), {"padding": 1}, KERNELS),
    "kernels, 1x1": ("matmul", (8, 8, 16, 16), (8, 8, 8, 1, 1), {}, KERNELS),
    "kernels, transformed": ("grouped", (8, 8, 28, 28), (8, 8, 8, 3, 3), {}, KERNELS._replace(transformed=True)),
    "kernels, portable": ("unfold", (8, 8, 28, 28), (8, 8, 8, 3, 3), {}, KERNELS._replace(portable=True)),
}
ONE = KERNELS._replace(training=False)  # forward only
LAST = KERNELS._replace(channels_last=True)
WIDE = {  # where vectors have 16 values
    "narrow": ("compiled", (8, 32, 28, 28), (8, 16, 32, 3, 3), {"padding": 1}, KERNELS),
    "narrow and tiny": ("compiled", (8, 4, 8, 8), (8, 4, 4, 3, 3), {}, KERNELS),
    "wide": ("grouped", (8, 128, 28, 28), (8, 128, 128, 3, 3), {"padding": 1}, KERNELS),
    "short rows": ("compiled", (8, 128, 8, 8), (8, 128, 128, 5, 5), {"padding": 2}, KERNELS),
    "short rows, small kernel": ("grouped", (8, 64, 8, 8), (8, 64, 64, 3, 3), {"padding": 1}, KERNELS),
    "short rows, small kernel, forward": ("compiled", (8, 64, 8, 8), (8, 64, 64, 3, 3), {"padding": 1}, ONE),
    "shortest rows": ("compiled", (8, 64, 4, 4), (8, 64, 64, 3, 3), {"padding": 1}, KERNELS),
    "short rows, dilated": ("grouped", (32, 64, 8, 8), (32, 64, 64, 3, 3), {"padding": 2, "dilation": 2}, KERNELS),
    "unfilled rows": ("compiled", (8, 64, 28, 28), (8, 64, 64, 3, 3), {"padding": 1}, KERNELS),
    "unfilled rows, forward": ("grouped", (8, 64, 28, 28), (8, 64, 64, 3, 3), {"padding": 1}, ONE),
    "whole rows": ("compiled", (8, 64, 32, 32), (8, 64, 64, 5, 5), {"padding": 2}, KERNELS),
    "in groups": ("compiled", (8, 8, 16, 16), (8, 8, 4, 3, 3), {"groups": 2}, KERNELS),
    "strided": ("compiled", (8, 32, 56, 56), (8, 32, 32, 3, 3), {"stride": 2}, KERNELS),
    "strided, of large samples": ("looped", (8, 128, 56, 56), (8, 128, 128, 3, 3), {"stride": 2}, KERNELS),
    "strided, of large sets": ("grouped", (8, 256, 8, 8), (8, 256, 256, 3, 3), {"stride": 2}, KERNELS),
    "much padded": ("compiled", (8, 8, 16, 16), (8, 8, 8, 3, 3), {"padding": 3}, KERNELS),
    "channels last": ("compiled", (8, 32, 28, 28), (8, 16, 32, 3, 3), {"padding": 1}, LAST),
    "few outputs": ("compiled", (8, 128, 28, 28), (8, 3, 128, 3, 3), {"padding": 1}, KERNELS),
    "few outputs, wide": ("folded", (8, 256, 28, 28), (8, 3, 256, 3, 3), {"padding": 1}, KERNELS),
    "few outputs, forward": ("folded", (8, 128, 28, 28), (8, 3, 128, 3, 3), {"padding": 1}, ONE),
    "shared": ("compiled", (8, 16, 28, 28), (16, 16, 3, 3), {"padding": 1}, KERNELS),
    "shared, wide": ("plain", (8, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, KERNELS),
    "shared, short rows": ("plain", (8, 32, 8, 8), (32, 32, 3, 3), {"padding": 1}, KERNELS),
    "shared, channels last": ("plain", (8, 16, 28, 28), (16, 16, 3, 3), {"padding": 1}, LAST),
    "one sample, narrow": ("compiled", (1, 16, 28, 28), (1, 16, 16, 3, 3), {"padding": 1}, KERNELS),
}
SHARED = {  # 1x1
    "many samples": ("matmul", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU),
    "few samples": ("plain", (8, 16, 28, 28), (16, 16, 1, 1), {}, CPU),
    "few samples, threads": ("matmul", (8, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(threaded=True)),
    "strided": ("matmul", (32, 16, 28, 28), (16, 16, 1, 1), {"stride": 2}, CPU),
    "in groups": ("plain", (32, 16, 28, 28), (16, 8, 1, 1), {"groups": 2}, CPU),
    "large sets": ("plain", (32, 256, 4, 4), (256, 256, 1, 1), {}, CPU),
    "double": ("plain", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(dtype=torch.float64)),
    "channels last": ("plain", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(channels_last=True)),
    "transformed": ("plain", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(transformed=True)),
    "portable": ("plain", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(portable=True)),
    "on a GPU": ("plain", (32, 16, 28, 28), (16, 16, 1, 1), {}, CPU._replace(device="cuda")),
}
RULES |= {f"shared, 1x1, {name}": rule for name, rule in SHARED.items()}


@pytest.mark.parametrize(("path", "x", "weight", "options", "setting"), RULES.values(), ids=RULES)
def test_the_rules(path, x, weight, options, setting):
    arguments = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    assert choose(measure_convolution(2, x, weight, **arguments), setting).path == path


@pytest.mark.parametrize(("path", "x", "weight", "options", "setting"), WIDE.values(), ids=WIDE)
def test_the_rules_of_the_dense_kernel(path, x, weight, options, setting, monkeypatch):
    arguments = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    monkeypatch.setattr(library, "lanes", lambda: 16)
    assert choose(measure_convolution(2, x, weight, **arguments), setting).path == path
    monkeypatch.setattr(library, "lanes", lambda: 4)
    assert choose(measure_convolution(2, x, weight, **arguments), setting).path != "compiled"


TRANSPOSED = {  # x, one set of weights, options, setting
    "large": ("looped", (8, 64, 32, 32), (64, 64, 4, 4), {"stride": 2}, CPU),
    "small": ("grouped", (8, 64, 8, 8), (64, 64, 4, 4), {"stride": 2}, CPU),
    "large for a forward": ("looped", (8, 64, 16, 16), (64, 64, 4, 4), {"stride": 2}, FORWARD),
    "not so for a backward": ("grouped", (8, 64, 16, 16), (64, 64, 4, 4), {"stride": 2}, CPU),
    "many small samples": ("grouped", (512, 32, 8, 8), (32, 32, 4, 4), {"stride": 2}, CPU),
    "16 channels": ("looped", (32, 16, 32, 32), (16, 16, 4, 4), {"stride": 2}, CPU),
    "16 channels, odd kernel": ("grouped", (32, 16, 32, 32), (16, 16, 3, 3), {"stride": 2}, CPU),
    "16 channels, odd kernel, padded": (
        "looped",
        (32, 16, 32, 32),
        (16, 16, 3, 3),
        {"stride": 2, "output_padding": 1},
        CPU,
    ),
    "narrow": ("grouped", (32, 8, 32, 32), (8, 8, 4, 4), {"stride": 2}, CPU),
    "without a stride": ("grouped", (8, 64, 32, 32), (64, 64, 3, 3), {}, CPU),
    "grouped": ("grouped", (8, 64, 32, 32), (64, 32, 4, 4), {"stride": 2, "groups": 2}, CPU),
    "on a GPU": ("grouped", (8, 64, 32, 32), (64, 64, 4, 4), {"stride": 2}, CPU._replace(device="cuda")),
    "transformed": ("grouped", (8, 64, 32, 32), (64, 64, 4, 4), {"stride": 2}, CPU._replace(transformed=True)),
    "portable": ("patches", (8, 64, 32, 32), (64, 64, 4, 4), {"stride": 2}, CPU._replace(portable=True)),
    "one sample": ("single", (1, 64, 64, 64), (64, 64, 4, 4), {"stride": 2}, CPU),
    "kernels": ("compiled", (8, 64, 32, 32), (64, 64, 4, 4), {"stride": 2}, KERNELS),
    "kernels, large sets": ("grouped", (8, 256, 8, 8), (256, 256, 4, 4), {"stride": 2}, KERNELS),
    "kernels, one sample": ("single", (1, 64, 64, 64), (64, 64, 4, 4), {"stride": 2}, KERNELS),
    "kernels, one sample, narrow": ("compiled", (1, 16, 64, 64), (16, 16, 4, 4), {"stride": 2}, KERNELS),
}


@pytest.mark.parametrize(("path", "x", "weight", "options", "setting"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_the_rules_of_transposed_convolutions(path, x, weight, options, setting, monkeypatch):
    monkeypatch.setattr(library, "lanes", lambda: 16)
    named = {"bias": None, "stride": 1, "padding": 1, "output_padding": 0, "groups": 1, "dilation": 1} | options
    assert choose(measure_transposed(2, x, (x[0], *weight), **named), setting).path == path


def test_volumes_run_by_the_kernel_where_an_output_sums_few_values(monkeypatch):
    monkeypatch.setattr(library, "lanes", lambda: 8)
    for C, path in ((32, "compiled"), (64, "grouped")):
        geometry = measure(3, (8, C, 4, 8, 8), (8, C, C, 3, 3, 3), None, 1, 1, 1, 1)
        assert choose(geometry, KERNELS).path == path
        assert possible(geometry, KERNELS) == ["grouped", "looped", "patches", "compiled"]


def test_vectors_of_eight_sum_fewer_values(monkeypatch):
    geometry = measure(2, (8, 64, 32, 32), (8, 64, 64, 5, 5), None, 1, 2, 1, 1)
    monkeypatch.setattr(library, "lanes", lambda: 8)
    assert choose(geometry, KERNELS).path == "grouped"


def test_a_graph_has_no_call_for_each_sample(monkeypatch):
    """It would hold for one size of the batch only."""
    geometry = measure(-2, (8, 64, 32, 32), (8, 64, 64, 4, 4), None, 2, 1, 0, 1, 1)
    assert "looped" in possible(geometry, CPU)
    planar = measure(2, (8, 32, 56, 56), (8, 32, 32, 3, 3), None, 2, 0, 1, 1)
    assert choose(planar, CPU).path == "looped"
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert choose(planar, CPU).path == "grouped" and "looped" not in possible(planar, CPU)
    assert choose(geometry, CPU).path == "grouped" and "looped" not in possible(geometry, CPU)


def test_explain_says_path_and_reason(capsys):
    with without_kernels():
        explain((8, 4, 16, 16), (8, 4, 1, 5, 5), padding=2, groups=4)
    assert capsys.readouterr().out.splitlines() == [
        "conv2d, x: 8 4 16 16, weight: 8 4 1 5 5 (one set per sample), float32 on cpu, with gradients",
        "  path `depthwise`: torch's depthwise backward is slow for this kernel",
        "  output: 8 4 16 16; 204,800 multiply-adds",
    ]


def test_explain_sees_the_block_it_is_called_in(capsys):
    with portable():
        explain((8, 4, 16, 16), (8, 4, 4, 3, 3), training=False)
    assert "path `unfold`: a dynamic batch must survive the export" in capsys.readouterr().out


def test_explain_refuses_what_conv2d_refuses():
    with pytest.raises(ShapeError, match=r"^`conv2d`: axis `Cin/G` is 3"):
        explain((2, 3, 8, 8), (2, 4, 5, 3, 3))
