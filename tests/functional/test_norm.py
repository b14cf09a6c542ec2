"""Normalisations with an affine map for all, for each sample and for each block, against torch's and a loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from functional.loops import assert_like_loop, one_of, tensors

from nni_dynconv import functional
from nni_dynconv.errors import ShapeError

MEAN, VAR = torch.linspace(-1, 1, 4, dtype=torch.float64), torch.linspace(0.5, 2, 4, dtype=torch.float64)
NORMS = {  # of an input of 4 channels: ours, and torch's without an affine map
    "batch": ("batch_norm", (None, None), {"training": True}),
    "batch, evaluated": ("batch_norm", (MEAN, VAR), {}),
    "instance": ("instance_norm", (), {}),
    "instance, evaluated": ("instance_norm", (MEAN, VAR), {"use_input_stats": False}),
    "group": ("group_norm", (2,), {}),
    "layer": ("layer_norm", ((4, 3),), {}),
    "layer, last axis": ("layer_norm", ((3,),), {}),
}
norms = pytest.mark.parametrize(("name", "before", "options"), NORMS.values(), ids=NORMS)
SETS = {"none": None, "shared": (), "one": (1,), "own": (6,), "blocks": (2,)}


def shape_of(name, before):
    return before[0] if name == "layer_norm" else (4,)


def ours(name, before, options, counts=None):
    before = [one.to(torch.float64) if isinstance(one, torch.Tensor) else one for one in before]

    def normalised(x, weight=None, bias=None):
        own = [one.to(x.dtype) if isinstance(one, torch.Tensor) else one for one in before]
        return getattr(functional, name)(x, *own, weight=weight, bias=bias, **options, counts=counts)

    return normalised


def truth(name, before, options, counts=None):
    """Torch's normalisation, then the affine map of each sample on its own."""

    def normalised(x, weight=None, bias=None):
        own = [one.to(x.dtype) if isinstance(one, torch.Tensor) else one for one in before]
        y = getattr(F, name)(x, *own, **options)
        samples = []
        for b in range(len(y)):
            one = y[b]
            for function, tensor in ((torch.mul, weight), (torch.add, bias)):
                if tensor is None:
                    continue
                shape = shape_of(name, before)
                own_set = one_of(tensor, b, len(y), counts) if tensor.dim() > len(shape) else tensor
                placed = own_set if name == "layer_norm" else own_set.reshape(-1, *[1] * (one.dim() - 1))
                one = function(one, placed)
            samples.append(one)
        return torch.stack(samples)

    return normalised


def make(name, before, weight, bias, **more):
    shape = shape_of(name, before)
    affine = [None if SETS[one] is None else (*SETS[one], *shape) for one in (weight, bias)]
    return tensors((6, 4, 3), *affine, **more)


@norms
@pytest.mark.parametrize("weight", SETS)
@pytest.mark.parametrize("bias", SETS)
def test_it_equals_the_loop(name, before, options, weight, bias):
    inputs = make(name, before, weight, bias)
    assert_like_loop(ours(name, before, options), truth(name, before, options), inputs)


@norms
@pytest.mark.parametrize("counts", [(1, 5), (6, 0)])
def test_unequal_blocks_equal_the_loop(name, before, options, counts):
    inputs = make(name, before, "blocks", "blocks")
    assert_like_loop(ours(name, before, options, counts), truth(name, before, options, counts), inputs)


@norms
def test_gradients_pass_gradcheck(name, before, options):
    for sets in ("own", "blocks"):
        inputs = make(name, before, sets, sets)
        assert torch.autograd.gradcheck(ours(name, before, options), inputs, fast_mode=True)


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_equal_the_loop(name, before, options, dtype):
    inputs = make(name, before, "own", "blocks", dtype=dtype)
    assert_like_loop(ours(name, before, options), truth(name, before, options), inputs)


@norms
def test_memory_layout_does_not_matter(name, before, options):
    def strange(x, *affine):
        return ours(name, before, options)(x.movedim(1, -1).contiguous().movedim(-1, 1), *affine)

    assert_like_loop(strange, truth(name, before, options), make(name, before, "own", "blocks"))


@norms
@pytest.mark.parametrize("weight", [(0,), (2,)])
def test_an_empty_batch_gives_an_empty_output(name, before, options, weight):
    if options.get("training"):
        pytest.skip("an empty batch has no statistics")
    shape = shape_of(name, before)
    x, weight, bias = tensors((0, 4, 3), (*weight, *shape), (*weight, *shape))
    y = ours(name, before, options)(x, weight, bias)
    assert y.shape == x.shape
    assert not any(one.any() for one in torch.autograd.grad(y.sum(), (weight, bias)))


@pytest.mark.parametrize("space", [(), (5,), (5, 2), (5, 2, 3)])
def test_batch_norm_takes_any_space(space):
    x, weight, bias = tensors((6, 4, *space), (6, 4), (6, 4))
    expected = F.batch_norm(x, None, None, None, None, True)
    placed = [one.reshape(6, 4, *[1] * len(space)) for one in (weight, bias)]
    found = functional.batch_norm(x, None, None, weight, bias, training=True)
    torch.testing.assert_close(found, expected * placed[0] + placed[1])


def test_layer_norm_takes_axes_between_batch_and_shape():
    x, weight = tensors((6, 2, 4, 3), (2, 4, 3))
    found = functional.layer_norm(x, (4, 3), weight)
    expected = F.layer_norm(x, (4, 3)) * weight.repeat_interleave(3, 0)[:, None]
    torch.testing.assert_close(found, expected)


def test_running_statistics_are_not_touched_by_a_wrong_call():
    mean, var = torch.zeros(4), torch.ones(4)
    with pytest.raises(ShapeError, match="`batch_norm`: axis `C` is 4 in `x` but 3 in `weight`"):
        functional.batch_norm(torch.randn(6, 4, 3), mean, var, torch.ones(3), training=True)
    assert not mean.any()


WRONG = {
    "sets": ("group_norm", (2,), {"weight": torch.ones(4, 4)}, r"axis `B` is 6 in `x` but 4 in `weight`, which"),
    "rank": ("instance_norm", (), {"bias": torch.ones(1, 6, 4)}, r"`bias` has 3 axes, .* but needs 1: C"),
    "shape": ("layer_norm", ((3, 4),), {}, r"`x` \(6, 4, 3\) must have a batch and end in .* \(3, 4\)"),
    "all": ("layer_norm", ((6, 4, 3),), {}, r"`x` \(6, 4, 3\) must have a batch and end in .* \(6, 4, 3\)"),
}


@pytest.mark.parametrize(("name", "before", "options", "text"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_words(name, before, options, text):
    with pytest.raises(ShapeError, match=rf"^`{name}`: .*" + text):
        getattr(functional, name)(torch.zeros(6, 4, 3), *before, **options)
