"""`linear` against a loop over the samples."""

from __future__ import annotations

import pytest
import torch
from functional.loops import assert_like_loop, loop_linear, tensors

from nni_dynconv.errors import ShapeError
from nni_dynconv.functional import linear, portable

shapes = pytest.mark.parametrize("x", [(3, 5), (3, 2, 5), (3, 2, 4, 5), (1, 5), (3, 0, 5)])
weights = pytest.mark.parametrize("shared", [True, False])
biases = pytest.mark.parametrize("bias", [None, "shared", "own"])


def make(x, shared, bias):
    weight = (4, 5) if shared else (x[0], 4, 5)
    return tensors(x, weight, {None: None, "shared": (4,), "own": (x[0], 4)}[bias])


@shapes
@weights
@biases
def test_it_equals_the_loop(x, shared, bias):
    assert_like_loop(linear, loop_linear, make(x, shared, bias))


@shapes
@weights
@biases
def test_gradients_pass_gradcheck(x, shared, bias):
    inputs = [one for one in make(x, shared, bias) if one is not None]
    assert torch.autograd.gradcheck(linear, inputs, fast_mode=True)


@weights
@biases
@pytest.mark.parametrize("x", [(0, 5), (0, 3, 5)])
def test_an_empty_batch_gives_an_empty_output(x, shared, bias):
    assert linear(*make(x, shared, bias)).shape == (*x[:-1], 4)


def test_samples_do_not_see_each_other():
    x, weight = tensors((3, 2, 5), (3, 4, 5))
    gradient = torch.autograd.grad(linear(x, weight)[1].sum(), x)[0]
    assert gradient[1].all()
    assert not gradient[[0, 2]].any()


def test_export_takes_a_dynamic_batch():
    class Layer(torch.nn.Module):
        def forward(self, x, weight):
            return linear(x, weight)

    batch = torch.export.Dim("batch", min=2)
    with portable():
        program = torch.export.export(
            Layer(), (torch.randn(3, 5), torch.randn(3, 4, 5)), dynamic_shapes=({0: batch}, {0: batch})
        )
    x, weight = torch.randn(7, 5), torch.randn(7, 4, 5)
    torch.testing.assert_close(program.module()(x, weight), loop_linear(x, weight))


WRONG = {
    "channels": ((2, 3), (4, 5), None, r"axis `Cin` is 3 in `x` but 5 in `weight`"),
    "batch": ((2, 3), (3, 4, 3), None, r"axis `B` is 2 in `x` but 3 in `weight`"),
    "bias": ((2, 3), (4, 3), (3,), r"axis `Cout` is 4 in `weight` but 3 in `bias`"),
    "x rank": ((3,), (4, 3), None, r"`x` has 1 axes, \(3,\), but needs 2 or more: .* pass `x\[None\]`"),
    "weight rank": ((2, 3), (3,), None, r"`weight` has 1 axes, \(3,\), but needs 2 .* or 3"),
}


@pytest.mark.parametrize(("x", "weight", "bias", "text"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_words(x, weight, bias, text):
    with pytest.raises(ShapeError, match=r"^`linear`: .*" + text):
        linear(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias))
