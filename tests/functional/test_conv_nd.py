"""Convolutions over one and three axes, and transposed ones, against a loop over the samples with torch's functions."""

from __future__ import annotations

import pytest
import torch
from functional import loops
from functional.loops import assert_like_loop, problems, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv import functional as F
from nni_dynconv.errors import ConfigError, ShapeError
from nni_dynconv.functional import conv2d, explain, portable, without_kernels
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.paths import columns

CASES = {  # op, x, one set of weights, options, channels out, the path for per-sample weights
    "conv1d": ("conv1d", (3, 4, 7), (6, 4, 3), {"padding": 1, "stride": 2}, 6, "unfold"),
    "conv1d, grouped": ("conv1d", (3, 4, 7), (6, 2, 3), {"groups": 2, "dilation": 2}, 6, "grouped"),
    "conv1d, 1x1": ("conv1d", (3, 4, 7), (6, 4, 1), {}, 6, "matmul"),
    "conv1d, same": ("conv1d", (3, 4, 7), (6, 4, 4), {"padding": "same"}, 6, "unfold"),
    "conv1d, valid": ("conv1d", (3, 4, 7), (6, 4, 4), {"padding": "valid"}, 6, "unfold"),
    "conv3d": ("conv3d", (2, 2, 4, 5, 6), (4, 2, 3, 2, 3), {"padding": (1, 0, 2), "stride": (2, 1, 1)}, 4, "grouped"),
    "conv3d, depthwise": (
        "conv3d",
        (2, 4, 4, 5, 5),
        (4, 1, 2, 2, 2),
        {"groups": 4, "dilation": (1, 2, 3)},
        4,
        "grouped",
    ),
    "conv3d, 1x1": ("conv3d", (2, 4, 3, 3, 3), (6, 2, 1, 1, 1), {"groups": 2, "stride": (1, 2, 1)}, 6, "matmul"),
    "conv3d, same": ("conv3d", (2, 2, 4, 4, 4), (2, 2, 2, 3, 4), {"padding": "same"}, 2, "grouped"),
    "transposed 1d": ("conv_transpose1d", (3, 4, 5), (4, 3, 3), {"stride": 2, "output_padding": 1}, 3, "grouped"),
    "transposed 2d": (
        "conv_transpose2d",
        (3, 4, 4, 3),
        (4, 3, 3, 2),
        {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2), "groups": 2},
        6,
        "grouped",
    ),
    "transposed, dilated": ("conv_transpose2d", (3, 4, 4, 3), (4, 1, 3, 2), {"dilation": 2, "groups": 4}, 4, "grouped"),
    "transposed, 1x1": ("conv_transpose2d", (3, 4, 4, 3), (4, 3, 1, 1), {"groups": 2}, 6, "matmul"),
    "transposed, upsampling": ("conv_transpose2d", (3, 4, 4, 3), (4, 2, 2, 2), {"stride": 2}, 2, "grouped"),
    "transposed, large": ("conv_transpose2d", (2, 32, 64, 64), (32, 32, 2, 2), {"stride": 2}, 32, "looped"),
    "transposed 3d": ("conv_transpose3d", (2, 2, 2, 3, 3), (2, 2, 2, 2, 3), {"stride": (1, 2, 2)}, 2, "grouped"),
}
KINDS = [(1, False), (3, False), (1, True), (2, True), (3, True)]
cases = pytest.mark.parametrize(("op", "x", "weight", "options", "Cout", "path"), CASES.values(), ids=CASES)
sets = pytest.mark.parametrize("sets", ["shared", "own", "blocks"])


def pair(op):
    return getattr(F, op), getattr(loops, f"loop_{op}")


def make(x, weight, Cout, sets, bias=True, batch=None, **more):
    batch = 2 * (x[0] // 2 + 1) if batch is None and sets == "blocks" else x[0] if batch is None else batch
    lead = {"shared": (), "own": (batch,), "blocks": (2,)}[sets]
    return tensors((batch, *x[1:]), (*lead, *weight), (*lead, Cout) if bias else None, **more)


@cases
@sets
def test_it_equals_the_loop(op, x, weight, options, Cout, path, sets):
    if sets == "own":
        assert chosen(x, (x[0], *weight), op=op, dtype=torch.float64, **options)[1].path == path
    assert_like_loop(*pair(op), make(x, weight, Cout, sets), **options)


@cases
@sets
def test_the_portable_form_equals_the_loop(op, x, weight, options, Cout, path, sets):
    with portable():
        assert_like_loop(*pair(op), make(x, weight, Cout, sets), **options)


@cases
@sets
def test_the_form_of_an_exporter_equals_the_loop(op, x, weight, options, Cout, path, sets, monkeypatch):
    monkeypatch.setattr(columns, "is_exporting", lambda: True)
    with portable():
        assert_like_loop(*pair(op), make(x, weight, Cout, sets), **options)


def test_an_exported_convolution_takes_slices_and_unfolds_nothing(monkeypatch):
    """ONNX Runtime took 505 ms instead of 39 for 17 samples of 6 channels, 64 by 64, and 5x5: it gathers one by one."""
    batch = torch.export.Dim("batch")

    def exported():
        module = Convolution()
        inputs = torch.ones(3, 2, 9, 9), torch.ones(3, 4, 2, 3, 3)
        return torch.export.export(module, inputs, dynamic_shapes=({0: batch}, {0: batch}), strict=False).graph

    def names(graph):
        return [str(node.target) for node in graph.nodes]

    sliced = names(exported())
    assert "aten.im2col.default" not in sliced and "aten.unfold.default" not in sliced
    assert sliced.count("aten.slice.Tensor") == 3 + 3  # not a pair for each of nine taps, which is slow to write
    monkeypatch.setattr(columns, "MOST_SLICES", 5)
    assert "aten.unfold.default" in names(exported())


class Convolution(torch.nn.Module):
    def forward(self, x, weight):
        return conv2d(x, weight, padding=1)


@cases
def test_one_sample_equals_the_loop(op, x, weight, options, Cout, path):
    assert_like_loop(*pair(op), make(x, weight, Cout, "own", batch=1), **options)


@cases
@pytest.mark.parametrize("bias", ["shared", "own", "none"])
def test_unequal_blocks_and_other_biases_equal_the_loop(op, x, weight, options, Cout, path, bias):
    lead = {"shared": (), "own": (4,), "none": ()}[bias]
    inputs = tensors((4, *x[1:]), (3, *weight), None if bias == "none" else (*lead, Cout))
    assert_like_loop(*pair(op), inputs, counts=(2, 0, 2), **options)


@cases
@sets
def test_gradients_pass_gradcheck(op, x, weight, options, Cout, path, sets):
    inputs = make(x, weight, Cout, sets)
    assert torch.autograd.gradcheck(lambda *args: getattr(F, op)(*args, **options), inputs, fast_mode=True)


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_equal_the_loop(op, x, weight, options, Cout, path, dtype):
    assert_like_loop(*pair(op), make(x, weight, Cout, "own", dtype=dtype), **options)


@cases
@sets
def test_memory_layout_does_not_matter(op, x, weight, options, Cout, path, sets):
    ours, theirs = pair(op)

    def strange(x, weight):
        rolled = x.movedim(1, -1).contiguous().movedim(-1, 1)  # channels last
        return ours(rolled, weight.transpose(-1, -2).contiguous().transpose(-1, -2), **options)

    assert_like_loop(strange, lambda x, w: theirs(x, w, **options), make(x, weight, Cout, sets)[:2])


@cases
@sets
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(op, x, weight, options, Cout, path, sets):
    inputs = make(x, weight, Cout, sets, batch=0)
    y = getattr(F, op)(*inputs, **options)
    assert y.shape == (0, *pair(op)[1](*make(x, weight, Cout, "own"), **options).shape[1:])
    gradients = torch.autograd.grad(y.sum(), inputs)
    assert [g.shape for g in gradients] == [one.shape for one in inputs]
    assert not any(g.any() for g in gradients)


@given(problems(KINDS), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_problem_equals_the_loop(problem, exported):
    op, inputs, options = problem
    with portable(exported):
        assert_like_loop(*pair(op), inputs, **options)


@cases
def test_export_takes_a_dynamic_batch(op, x, weight, options, Cout, path):
    class Layer(torch.nn.Module):
        def forward(self, x, weight):
            return getattr(F, op)(x, weight, **options)

    batch = torch.export.Dim("batch", min=2)
    inputs = make(x, weight, Cout, "own", bias=False, dtype=torch.float32)[:2]
    program = torch.export.export(
        Layer(), tuple(one.detach() for one in inputs), dynamic_shapes=({0: batch}, {0: batch})
    )
    assert_like_loop(
        program.module(),
        lambda x, w: pair(op)[1](x, w, **options),
        make(x, weight, Cout, "own", bias=False, batch=5, dtype=torch.float32)[:2],
    )


def test_vmap_and_functional_gradients_go_through():
    x, weight = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 2, 3, 3)
    y = torch.func.vmap(lambda x, w: F.conv_transpose2d(x, w, stride=2))(x, weight)
    torch.testing.assert_close(y[1], F.conv_transpose2d(x[1], weight[1], stride=2), atol=1e-4, rtol=1e-4)


def test_torch_compile_gives_the_same():
    compiled = torch.compile(F.conv1d, backend="eager", fullgraph=True)
    assert_like_loop(compiled, loops.loop_conv1d, tensors((3, 4, 7), (3, 4, 1, 5)), padding=2, groups=4)


WRONG = {
    "x rank": ("conv1d", (3, 8), (4, 3, 3), {}, r"`x` has 2 axes, \(3, 8\), but needs 3: B Cin L"),
    "weight rank": ("conv1d", (2, 3, 8), (4, 3), {}, r"`weight` has 2 axes, .* needs 3 .*\(Cout Cin/G K\) or 4"),
    "channels": ("conv3d", (2, 3, 8, 8, 8), (4, 5, 3, 3, 3), {}, r"axis `Cin/G` is 3 in `x` with .* 5 in `weight`"),
    "too small": ("conv3d", (2, 3, 2, 8, 8), (4, 3, 3, 3, 3), {}, r"spans 3 along `T` \(`Kt` and .* has only 2"),
    "stride": ("conv1d", (2, 3, 8), (4, 3, 3), {"stride": (1, 1)}, r"`stride` is \(1, 1\), but must be one whole"),
    "transposed channels": ("conv_transpose2d", (2, 3, 8, 8), (4, 5, 3, 3), {}, r"axis `Cin` is 3 in `x` but 4"),
    "transposed groups": ("conv_transpose2d", (2, 3, 8, 8), (3, 5, 3, 3), {"groups": 2}, r"`Cin` is 3 in `x`, which"),
    "transposed bias": (
        "conv_transpose2d",
        (2, 4, 8, 8),
        (4, 5, 3, 3),
        {"groups": 2, "bias": torch.zeros(5)},
        r"axis `Cout` is 10 in `weight` with `groups=2` but 5 in `bias`",
    ),
    "output padding": (
        "conv_transpose1d",
        (2, 3, 8),
        (3, 5, 3),
        {"output_padding": 2, "stride": 2},
        r"`output_padding` is \(2,\), but must be less than `stride` \(2,\) or `dilation` \(1,\)",
    ),
    "nothing left": (
        "conv_transpose1d",
        (2, 3, 1),
        (3, 5, 3),
        {"padding": 2},
        r"the output would have the size \(-1,\)",
    ),
}


@pytest.mark.parametrize(("op", "x", "weight", "options", "text"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_words(op, x, weight, options, text):
    with pytest.raises(ShapeError, match=rf"^`{op}`: .*" + text):
        getattr(F, op)(torch.zeros(x), torch.zeros(weight), **options)


def test_explain_serves_them_all(capsys):
    with without_kernels():
        explain((2, 4, 3, 5), (2, 4, 6, 2, 2), 2, op="conv_transpose2d", groups=2)
    assert capsys.readouterr().out.splitlines() == [
        "conv_transpose2d, x: 2 4 3 5, weight: 2 4 6 2 2 (one set per sample), float32 on cpu, with gradients",
        "  path `grouped`: the batch fits into the groups of one convolution",
        "  output: 2 12 6 10; 2,880 multiply-adds",
    ]
    with pytest.raises(ConfigError, match="`explain` knows no op `conv4d`. Did you mean `conv"):
        explain((1,), (1,), op="conv4d")
