"""Kernels of one choice lie in each other as the coordinate controller's nesting says; which ones belong together."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv import CoordinateController, DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.generation.controllers.nesting import leaders_of
from nni_dynconv.ops import DynamicConv2d, DynamicSepConv
from nni_dynconv.sites.spec import Site, WeightSpec


def site(name, kernel, Cout=6, Cin=4, op="DynamicConv2d"):
    bias = WeightSpec("bias", (Cout,), Cin * kernel**2, "bias")
    return Site(name, op, (WeightSpec("weight", (Cout, Cin, kernel, kernel), Cin * kernel**2), bias))


KERNELS = tuple(site(f"body/conv{kernel}", kernel) for kernel in (3, 5, 7))


def bound(nesting, sites=KERNELS, context_dim=8):
    torch.manual_seed(0)
    controller = CoordinateController(nesting=nesting)
    controller.bind(sites, context_dim)
    return controller


def made_by(controller, sites=KERNELS, context=None):
    """Weights and biases of each kernel size."""
    context = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)) if context is None else context
    flat = controller.generate(sites, context)
    found = {}
    for one, values in zip(sites, flat, strict=True):
        weight = one.specs[0]
        found[weight.shape[-1]] = (values[:, : weight.numel].unflatten(-1, weight.shape), values[:, weight.numel :])
    return found


def centre(weight, size):
    rim = (weight.shape[-1] - size) // 2
    return weight[..., rim : rim + size, rim : rim + size]


def shift(controller):
    """Change every parameter, as training does."""
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


def test_under_centre_a_small_kernel_is_the_centre_of_the_large_ones_also_when_trained():
    controller = bound("centre")
    for _ in range(2):
        made = made_by(controller)
        for small, large in ((3, 5), (3, 7), (5, 7)):
            torch.testing.assert_close(made[small][0], centre(made[large][0], small), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(made[small][1], made[large][1])  # one bias
        shift(controller)


def test_under_transform_a_small_kernel_is_a_matrix_times_that_centre():
    controller = bound("transform")
    start = made_by(controller)
    torch.testing.assert_close(start[3][0], centre(start[7][0], 3), rtol=1e-4, atol=1e-5)  # the identity
    shift(controller)
    made = made_by(controller)
    for size in (3, 5):
        matrix = controller.transforms[controller.places[f"body/conv{size}", 0]]
        expected = (centre(made[7][0], size).flatten(-2) @ matrix.t()).unflatten(-1, (size, size))
        torch.testing.assert_close(made[size][0], expected, rtol=1e-4, atol=1e-4)
        assert (made[size][0] - centre(made[7][0], size)).abs().max() > 0.05


def test_a_matrix_is_as_large_as_its_kernel_and_the_largest_has_none():
    controller = bound("transform")
    assert [tuple(one.shape) for one in controller.transforms] == [(9, 9), (25, 25)]
    assert not bound("centre").transforms
    assert not bound("transform", [site("point", 1)]).transforms


def test_under_free_kernels_have_nothing_in_common():
    made = made_by(bound("free"))
    pair = torch.stack([made[3][0].flatten(), centre(made[5][0], 3).flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.9
    assert (made[3][1] - made[5][1]).abs().max() > 0.1


@pytest.mark.parametrize("nesting", ["centre", "transform", "free"])
def test_a_kernel_that_was_selected_alone_is_made_as_before(nesting):
    controller = bound(nesting)
    shift(controller)
    before = made_by(controller)
    controller.select(KERNELS[1:2])
    torch.testing.assert_close(made_by(controller, KERNELS[1:2])[5], before[5])
    assert len(controller.transforms) == (nesting == "transform")


def test_kernels_that_were_selected_together_stay_together():
    controller = bound("centre", [site("other", 3), *KERNELS])
    kept = (KERNELS[2], KERNELS[0])
    controller.select(kept)
    shift(controller)
    made = made_by(controller, kept)
    torch.testing.assert_close(made[3][0], centre(made[7][0], 3), rtol=1e-4, atol=1e-5)
    assert controller.leaders.tolist() == [0, 0]


# Which belong together


class Nested(ModelSpace):
    """Kernels as candidates, as an argument, inside of candidates; two layers in one candidate."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(3, 6, nni.choice("kernel", [3, 5]), padding="same")
        inner = {f"k{k}": nn.Sequential(nn.ReLU(), DynamicSepConv(6, 6, k, norm=None)) for k in (3, 5)}
        self.body = LayerChoice({**inner, "wide": DynamicConv2d(6, 6, 3, padding=1, dilation=1)}, label="body")
        self.pair = LayerChoice([nn.Sequential(conv(), conv()), nn.Identity()], label="pair")

    def forward(self, x):
        return self.pair(self.body(self.stem(x)))


def conv():
    return DynamicConv2d(6, 6, 3, padding=1)


def test_in_a_space_candidates_and_variants_that_differ_in_their_kernel_belong_together():
    mutator = DynamicWeightMutator(
        Nested(), sampler=RandomSampler(seed=0), controller=CoordinateController(), context=VectorContext(5, 8)
    )
    names = list(mutator.source.sites)
    leaders = {name: names[leader] for name, leader in zip(names, mutator.controller.leaders.tolist(), strict=True)}
    together = {name: leader for name, leader in leaders.items() if name != leader}
    assert together == {"stem.kernel=5": "stem.kernel=3", "body/k5.1": "body/k3.1"}
    context, weights = torch.randn(2, 5), {}
    for kernel in (3, 5):
        sample = {"kernel": kernel, "body": f"k{kernel}", "pair": 1}
        with mutator.using(sample, context=context):
            made = mutator.source.make(mutator.plan(sample).sites, mutator.context(context))
        weights[kernel] = [made[0]["weight"] * (3 * kernel**2) ** 0.5, made[1]["depthwise"] * kernel]
    for small, large in zip(weights[3], weights[5], strict=True):
        torch.testing.assert_close(small, centre(large, 3), rtol=1e-4, atol=1e-5)


@given(st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_whatever_the_order_twins_of_one_shape_never_share(order):
    sites = [
        site("a/conv3", 3),
        site("a/dilated3", 3),
        site("a/conv5", 5),
        site("a/0", 3),
        site("a/1", 3),
        site("b", 3),
    ]
    shuffled = [sites[number] for number in order]
    for number, leader in enumerate(leaders_of(shuffled)):
        assert leader <= number
        same = [one for one in range(6) if leaders_of(shuffled)[one] == leader]
        assert len({shuffled[one].specs[0].shape for one in same}) == len(same)


@pytest.mark.parametrize(
    "other",
    [
        site("body/conv5", 5, Cout=8),  # other channels
        site("body/conv5", 5, op="DynamicDilConv"),
        site("head/conv5", 5),  # another label
        site("body/dilated5", 5),
        site("body/conv5#2", 5),  # another place of the label
        site("body/conv5.1", 5),  # another layer
        site("conv5", 5),  # no choice at all
    ],
)
def test_sites_that_differ_in_more_than_their_kernel_do_not_belong_together(other):
    assert leaders_of([KERNELS[0], other]) == [0, 1]
