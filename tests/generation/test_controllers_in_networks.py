"""Every controller serves a supernet: forward and backward, freezing, a file, `torch.compile`."""

from __future__ import annotations

import pytest
import torch
from earlier_files import save_in_format_3
from often import each_once
from spaces import Everything, image, vector

from nni_dynconv import (
    BasisController,
    ChunkedController,
    CoordinateController,
    DynamicWeightMutator,
    ExpertsController,
    FlatController,
    GdasSampler,
    LowRankController,
    VectorContext,
    export,
    load,
)

CONTROLLERS = {
    "chunked": ChunkedController,
    "chunked of version 0.1.0": lambda: ChunkedController(chunk=32, signs=False),
    "low_rank": lambda: LowRankController(rank=2),
    "coordinate": CoordinateController,
    "coordinate, transform": lambda: CoordinateController(nesting="transform"),
    "flat": FlatController,
    "experts": ExpertsController,
    "basis": BasisController,
}


def mutator_with(name, **settings):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(
        Everything(),
        sampler=GdasSampler(seed=0),
        controller=CONTROLLERS[name](),
        context=VectorContext(5, 8),
        **settings,
    )
    mutator.reset()
    return mutator


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_step_gives_gradients_to_controller_and_sampler(name):
    mutator = mutator_with(name)
    mutator(image(), context=vector()).square().mean().backward()
    roles = mutator.parameters_by_role()
    for role in ("controller", "architecture"):
        assert sum(float(one.grad.abs().sum()) for one in roles[role] if one.grad is not None) > 0, role


@each_once(name=CONTROLLERS, base=["learned", "none"])
def test_a_frozen_network_does_what_the_supernet_does_also_from_a_file(name, base, tmp_path):
    mutator = mutator_with(name, base=base).eval()
    sample, x, context = mutator.export(), image(), vector()
    with mutator.using(sample), torch.no_grad():
        expected = mutator(x, context=context)
    frozen = mutator.freeze(sample).eval()
    export.save(frozen, tmp_path)
    for network in (frozen, load(tmp_path)):
        with torch.no_grad():
            torch.testing.assert_close(network(x, context), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_context_that_lasts_or_is_baked_in_gives_what_it_gives_each_time(name):
    network, context = mutator_with(name, base="learned").eval().freeze().eval(), vector(1)
    baked, plain = export.bake(network, context), export.make_static(network, context)
    with torch.no_grad(), network.fixed(context):
        found = [(network(image(k)), baked(image(k)), plain(image(k))) for k in (1, 3)]
    for k, several in zip((1, 3), found, strict=True):
        for one in several:
            torch.testing.assert_close(one, network(image(k), context), rtol=1e-5, atol=1e-6)


def test_a_file_of_version_0_1_0_has_no_signs_and_its_own_chunk(tmp_path):
    """That version knew no signs; its default chunk was 32, which its files say."""
    frozen, x, context = mutator_with("chunked of version 0.1.0").eval().freeze(), image(), vector()

    def older(description):
        assert description["controller"]["args"].pop("signs") is False
        description["format"] = 1

    save_in_format_3(frozen, tmp_path, older)
    read = load(tmp_path)
    assert read.source.controller.chunk == 32 != ChunkedController().chunk
    torch.testing.assert_close(read(x, context), frozen(x, context), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_frozen_network_compiles_without_a_graph_break(name):
    mutator = mutator_with(name).eval()
    frozen, x, context = mutator.freeze(), image(), vector()
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), frozen(x, context), rtol=1e-4, atol=1e-5)
