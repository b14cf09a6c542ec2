"""Layers that run block by block, against the same ones at once."""

from __future__ import annotations

from unittest.mock import PropertyMock, patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.controllers import BasisController, ChunkedController, LowRankController
from nni_dynconv.generation.controllers import blockwise
from nni_dynconv.spec import Site, WeightSpec

KINDS = {"chunked": ChunkedController, "basis": BasisController, "low rank": LowRankController}


def _sites(width):
    specs = WeightSpec("weight", (width, 3, 3, 3), 27), WeightSpec("bias", (width,), 27, "bias")
    return [Site("a", "DynamicConv2d", specs), Site("b", "DynamicLinear", (WeightSpec("weight", (width, 11), 11),))]


def _gradients(controller, sites, context, create_graph=False):
    made = controller.generate(sites, context)
    parts = [context, *controller.parameters()]
    found = torch.autograd.grad(sum(one.pow(3).sum() for one in made), parts, create_graph=create_graph)
    if not create_graph:
        return [*made, *found]
    twice = torch.autograd.grad(sum(one.square().sum() for one in found), parts, allow_unused=True)
    return [one for one in twice if one is not None]


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    samples=st.integers(1, 5),
    width=st.integers(1, 9),
    values=st.sampled_from([8, 100, 1 << 18]),
    twice=st.booleans(),
)
def test_blocks_of_any_size_give_the_values_and_gradients_of_all_at_once(kind, samples, width, values, twice):
    torch.manual_seed(0)
    sites, controller = _sites(width), KINDS[kind](hidden=16, chunk=5)
    controller.bind(sites, 4)
    controller.double()
    context = torch.randn(samples, 4, dtype=torch.float64, requires_grad=True)
    with patch.object(blockwise, "VALUES", values):
        found = _gradients(controller, sites, context, twice)
    with patch.object(ChunkedController, "goes_in_blocks", PropertyMock(return_value=False)):
        expected = _gradients(controller, sites, context, twice)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_sample_whose_features_are_all_zero_has_finite_gradients():
    controller = ChunkedController(hidden=8, chunk=4)
    controller.bind(_sites(2), 4)
    controller.middle.bias.data.fill_(-100.0)
    assert all(one.isfinite().all() for one in _gradients(controller, _sites(2), torch.randn(3, 4, requires_grad=True)))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_as_wide_as_a_layer_is_kept_for_the_backward(kind):
    """For each value that was made, six of the layers between were kept."""
    sites, controller = _sites(64), KINDS[kind](hidden=64, chunk=4)
    controller.bind(sites, 4)
    kept = {}
    context = torch.randn(50, 4)

    def pack(saved):
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        controller.generate(sites, context)
    made = sum(4 * len(context) * site.num_generated for site in sites)
    assert sum(kept.values()) < 3 * made
