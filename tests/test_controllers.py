"""Controllers pass their suite, and the chunked one does not grow with the choices."""

from __future__ import annotations

import torch

from nni_dynconv.controllers import ChunkedController, Controller
from nni_dynconv.spec import Site, WeightSpec
from nni_dynconv.testing import ControllerSuite


class TestChunked(ControllerSuite):
    def make(self):
        return ChunkedController(hidden=64)


class TinyController(Controller):
    """What a user writes: one row a site and one a context, multiplied."""

    def bind(self, sites, context_dim):
        self.rows = torch.nn.ParameterDict({site.name: torch.randn(site.num_generated) for site in sites})
        self.factor = torch.nn.Linear(context_dim, 1) if context_dim else None

    def generate(self, sites, context):
        factor = 1.0 if context is None else 1.0 + self.factor(context)
        return [factor * self.rows[site.name] for site in sites]

    def select(self, sites):
        self.rows = torch.nn.ParameterDict({site.name: self.rows[site.name] for site in sites})


class TestTiny(ControllerSuite):
    def make(self):
        return TinyController()


def _sites(count, kernel_size=3):
    spec = WeightSpec("weight", (16, 16, kernel_size, kernel_size), 16 * kernel_size**2)
    return [Site(f"site{index}", "DynamicConv2d", (spec,)) for index in range(count)]


def _bound(sites, **settings):
    controller = ChunkedController(**settings)
    controller.bind(sites, context_dim=32)
    return controller


def _size(controller):
    return sum(parameter.numel() for parameter in controller.parameters())


def test_one_more_candidate_adds_one_row():
    assert _size(_bound(_sites(12))) - _size(_bound(_sites(11))) == 16


def test_ten_times_as_many_candidates_grow_it_by_less_than_a_tenth():
    from examples.video_denoising.space import DenoisingSpace
    from nni_dynconv import DynamicWeightMutator

    mutator = DynamicWeightMutator(DenoisingSpace())
    count, candidates = len(mutator.source.sites), sum(map(len, mutator.choices.values()))
    assert candidates == 13
    sites = [
        Site(f"{name}#{copy}", site.op, site.specs) for name, site in mutator.source.sites.items() for copy in range(10)
    ]
    assert len(sites) == 10 * count
    assert _size(_bound(sites)) < 1.1 * _size(_bound(list(mutator.source.sites.values())))


def test_a_larger_kernel_adds_no_parameter_and_uses_the_same_ones():
    small, large = _bound(_sites(1, 3)), _bound(_sites(1, 7))
    assert _size(small) == _size(large)
    large.load_state_dict(small.state_dict())
    context = torch.randn(2, 32)
    three, seven = (one.generate(_sites(1, size), context)[0] for one, size in ((small, 3), (large, 7)))
    torch.testing.assert_close(three, seven[:, : three.shape[1]])  # the same first chunks
    seven.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in large.parameters())
