"""Suites that a new op, sampler or controller inherits: a class of a few lines, and pytest does the rest.

>>> from nni_dynconv.controllers import ChunkedController
>>> class TestMyController(ControllerSuite):
...     def make(self):
...         return ChunkedController(hidden=16)
"""

from __future__ import annotations

import copy
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..export import describe_module, make_module
from ..generation import Controller
from ..ops import DynamicOp
from ..samplers import Choice, Sampler
from ..sites import Site, WeightSpec, split

__all__ = ["ControllerSuite", "OpSuite", "SamplerSuite"]


def _close(found: Any, expected: Any, message: str = "", **tolerance: Any) -> None:
    torch.testing.assert_close(
        found, expected, msg=(lambda text: f"{message}\n{text}") if message else None, **tolerance
    )


def _teach(sampler: Sampler, sample: dict[str, Any], reward: float) -> None:
    """Let a sampler learn, by whatever it learns by, in a way that a later draw shows."""
    if sampler.learns != "gradient":
        sampler.observe(sample, reward)
        return
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.add_(torch.linspace(0, reward / 10, parameter.numel()).view_as(parameter))


class OpSuite(ABC):
    """An op equals a loop over the samples with torch's own functions, in value and gradient, and survives a file."""

    tolerance: ClassVar[dict[str, Any]] = {"rtol": 1e-4, "atol": 1e-5}

    @abstractmethod
    def make(self) -> DynamicOp:
        """Make the op, without a normalisation in which samples meet."""

    @abstractmethod
    def example(self, batch: int) -> Tensor:
        """Make an input of a batch size, ``(B, ...)``: the same one at each call."""

    @abstractmethod
    def reference(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Apply one set of weights to one sample, ``(1, ...)``, by :mod:`torch.nn.functional`."""

    def _weights(self, *batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(*batch, self.make().num_generated, generator=generator, dtype=dtype) / 3

    def _loop(self, x: Tensor, flat: Tensor) -> Tensor:
        rows = flat if flat.dim() == 2 else flat.expand(len(x), -1)
        specs = self.make().weight_specs()
        samples = [self.reference(x[i : i + 1], split(rows[i], specs)) for i in range(len(x))]
        return torch.cat(samples)

    def test_it_owns_no_generated_weight(self) -> None:
        assert not list(self.make().parameters())

    def test_its_specs_add_up(self) -> None:
        op = self.make()
        assert op.num_generated == sum(spec.numel for spec in op.weight_specs()) > 0
        assert all(spec.fan_in >= 1 for spec in op.weight_specs())

    def test_per_sample_weights_equal_the_loop(self) -> None:
        for batch in (1, 3):
            x, flat = self.example(batch), self._weights(batch)
            _close(self.make()(x, flat), self._loop(x, flat), f"batch {batch}", **self.tolerance)

    def test_shared_weights_equal_the_loop(self) -> None:
        x, flat = self.example(3), self._weights()
        _close(self.make()(x, flat), self._loop(x, flat), **self.tolerance)

    def test_gradients_equal_the_loop(self) -> None:
        for flat in (self._weights(), self._weights(3)):
            found = [t.clone().requires_grad_() for t in (self.example(3), flat)]
            expected = [t.clone().requires_grad_() for t in (self.example(3), flat)]
            y = self.make()(*found)
            factor = torch.linspace(-1, 1, y.numel()).view_as(y)
            (y * factor).sum().backward()
            (self._loop(*expected) * factor).sum().backward()
            for ours, loops in zip(found, expected, strict=True):
                _close(ours.grad, loops.grad, rtol=1e-3, atol=1e-4)

    def test_gradcheck(self) -> None:
        for flat in (self._weights(dtype=torch.float64), self._weights(2, dtype=torch.float64)):
            inputs = (self.example(2).double().requires_grad_(), flat.requires_grad_())
            assert torch.autograd.gradcheck(self.make().double(), inputs, fast_mode=True)

    def test_blocks_of_samples_equal_the_loop(self) -> None:
        for counts, batch in ((None, 4), ([1, 3], 4), ([0, 2], 2)):
            x, flat = self.example(batch), self._weights(2)
            repeats = [batch // 2] * 2 if counts is None else counts
            rows = flat.repeat_interleave(torch.tensor(repeats), 0)
            _close(self.make()(x, flat, counts), self._loop(x, rows), f"blocks {repeats}", **self.tolerance)

    def test_an_empty_batch_gives_an_empty_output(self) -> None:
        x, expected = self.example(1), self.make()(self.example(1), self._weights())
        for flat in (self._weights(), self._weights(0)):
            assert self.make()(x[:0], flat).shape == (0, *expected.shape[1:])

    def test_its_ordinary_layer_does_the_same(self) -> None:
        op, x, flat = self.make(), self.example(3), self._weights()
        if type(op).static_layer is DynamicOp.static_layer:  # it says that it has none
            return
        with torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            layer = op.static_layer(split(flat, op.weight_specs())).train(op.training)
            assert torch.equal(torch.get_rng_state(), before), "it draws random numbers"
        assert not any(isinstance(one, DynamicOp) for one in layer.modules())
        assert sum(one.numel() for one in layer.parameters()) == op.num_generated
        _close(layer(x), op(x, flat), **self.tolerance)

    def test_it_can_be_written_down_and_made_again(self) -> None:
        op, x, flat = self.make(), self.example(2), self._weights(2)
        again = make_module(json.loads(json.dumps(describe_module(op))), [type(op).__module__]).train(op.training)
        again.load_state_dict(op.state_dict())
        _close(again(x, flat), op(x, flat))

    def test_samples_do_not_see_each_other(self) -> None:
        x, flat = self.example(3), self._weights(3)
        before = self.make()(x, flat)
        x[1], flat[1] = x[1] + 1, flat[1] * 2
        after = self.make()(x, flat)
        _close(after[[0, 2]], before[[0, 2]], **self.tolerance)

    def test_a_mapping_serves_as_well_as_a_flat_vector(self) -> None:
        op, x, flat = self.make(), self.example(2), self._weights(2)
        _close(op(x, split(flat, op.weight_specs())), op(x, flat))


class SamplerSuite(ABC):
    """A sampler stays in the space, is decided by its seed, restores its state, and copies."""

    choices: ClassVar[dict[str, Choice]] = {
        "first": Choice("first", ("a", "b", "c")),
        "inputs": Choice("inputs", ([0, 1], [0, 2], [1, 2]), inputs=3),
        "depth": Choice("depth", (1, 2)),
    }

    @abstractmethod
    def make(self, seed: int) -> Sampler:
        """Make the sampler, not yet bound."""

    def _bound(self, seed: int = 0) -> Sampler:
        sampler = self.make(seed)
        sampler.bind(self.choices)
        return sampler

    def _samples(self, sampler: Sampler, count: int = 20) -> list[dict[str, Any]]:
        return [sampler.sample() for _ in range(count)]

    def test_samples_are_in_the_space(self) -> None:
        sampler = self._bound()
        for sample in [*self._samples(sampler), sampler.best()]:
            assert list(sample) == list(self.choices)
            for label, value in sample.items():
                self.choices[label].index(value)

    def test_the_seed_decides_and_the_global_generator_is_left_alone(self) -> None:
        state = torch.get_rng_state()
        assert self._samples(self._bound(3)) == self._samples(self._bound(3)) != self._samples(self._bound(4))
        assert torch.equal(state, torch.get_rng_state())

    def test_probabilities_sum_to_one(self) -> None:
        sampler = self._bound()
        for label, choice in self.choices.items():
            probabilities = sampler.probabilities(label)
            assert probabilities.shape == (len(choice),) and (probabilities >= 0).all()
            _close(float(probabilities.sum()), 1.0)

    def test_log_prob_is_that_of_the_distribution(self) -> None:
        sampler = self._bound()
        total = sum(float(sampler.log_prob(sample).detach().exp()) for sample in self._all_samples())
        _close(total, 1.0, rtol=1e-4, atol=1e-4)

    def test_the_most_probable_are_those_of_all_and_each_is_there_once(self) -> None:
        sampler, samples = self._bound(), self._all_samples()
        for reward, sample in enumerate(self._samples(sampler, 6)):
            _teach(sampler, sample, float(reward))
        found = sampler.most_probable(len(samples) + 1)
        with torch.no_grad():
            expected = sorted((float(sampler.log_prob(sample)) for sample in samples), reverse=True)
            ours = [float(sampler.log_prob(sample)) for sample in found.samples]
        assert found.proven and all(one in found.samples for one in samples) and len(found.samples) == len(samples)
        for log_probs in (found.log_probs, ours):
            torch.testing.assert_close(torch.tensor(log_probs), torch.tensor(expected), rtol=1e-4, atol=1e-4)

    def test_entropy_is_positive(self) -> None:
        sampler = self._bound()
        assert sampler.entropy(sampler.sample()) > 0

    def test_state_restores(self) -> None:
        sampler, other = self._bound(1), self._bound(2)
        for reward, sample in enumerate(self._samples(sampler, 6)):
            _teach(sampler, sample, float(reward))
        buffer = io.BytesIO()
        torch.save(sampler.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        for one in (sampler, other):
            _teach(one, self._all_samples()[0], 1.0)
        assert self._samples(sampler) == self._samples(other)
        assert sampler.best() == other.best() or sampler.learns == "selection"

    def test_a_copy_goes_on_alike(self) -> None:
        sampler = self._bound()
        assert self._samples(copy.deepcopy(sampler)) == self._samples(sampler)

    def _all_samples(self) -> list[dict[str, Any]]:
        samples: list[dict[str, Any]] = [{}]
        for label, choice in self.choices.items():
            samples = [{**sample, label: value} for sample in samples for value in choice.candidates]
        return samples


class ControllerSuite(ABC):
    """A controller makes what is asked for, shared or a sample, at unit scale, and learns."""

    sites = (
        Site("small", "DynamicConv2d", (WeightSpec("weight", (4, 3, 3, 3), 27), WeightSpec("bias", (4,), 27, "bias"))),
        Site("large", "DynamicConv2d", (WeightSpec("weight", (32, 16, 7, 7), 16 * 49),)),
        Site("middle", "DynamicLinear", (WeightSpec("weight", (50, 60), 60),)),
    )
    context_dim = 16

    @abstractmethod
    def make(self) -> Controller:
        """Make the controller, not yet bound."""

    def _bound(self, context_dim: int | None, sites: Sequence[Site] | None = None) -> Controller:
        torch.manual_seed(0)
        controller = self.make()
        controller.bind(self.sites if sites is None else sites, context_dim)
        return controller

    def _context(self, *batch: int) -> Tensor:
        return torch.randn(*batch, self.context_dim, generator=torch.Generator().manual_seed(1))

    def test_shapes_are_those_asked_for(self) -> None:
        for context, lead in ((None, ()), (self._context(), ()), (self._context(5), (5,))):
            controller = self._bound(None if context is None else self.context_dim)
            made = controller.generate(self.sites, context)
            assert [tuple(one.shape) for one in made] == [(*lead, site.num_generated) for site in self.sites]

    def test_sites_made_together_equal_sites_made_alone(self) -> None:
        controller, context = self._bound(self.context_dim), self._context(2)
        together = controller.generate(self.sites, context)
        for site, made in zip(self.sites, together, strict=True):
            _close(controller.generate([site], context)[0], made, rtol=1e-4, atol=1e-5)

    def test_samples_equal_their_context_alone(self) -> None:
        controller, context = self._bound(self.context_dim), self._context(3)
        batch = controller.generate(self.sites, context)[0]
        _close(controller.generate(self.sites, context[1])[0], batch[1], rtol=1e-4, atol=1e-5)

    def test_what_is_made_has_unit_scale_at_the_start(self) -> None:
        for context in (None, self._context(64)):
            controller = self._bound(None if context is None else self.context_dim)
            for site, made in zip(self.sites, controller.generate(self.sites, context), strict=True):
                assert 0.5 < float(made.detach().square().mean().sqrt()) < 2.0, site.name

    def test_outputs_are_as_large_as_inputs_at_the_start(self) -> None:
        generator = torch.Generator().manual_seed(2)
        for context in (None, self._context(16)):
            controller = self._bound(None if context is None else self.context_dim)
            for site, made in zip(self.sites, controller.generate(self.sites, context), strict=True):
                spec = site.specs[0]
                weight = split(made.detach(), site.specs)[spec.name].flatten(-len(spec.shape) + 1) * spec.fan_in**-0.5
                x = torch.randn(256, int(spec.fan_in), generator=generator).relu()  # not of zero mean, as behind a ReLU
                gain = float((x @ weight.mT).square().mean().sqrt() / x.square().mean().sqrt())
                assert 0.5 < gain < 2.0, f"{site.name}: gain {gain:.2f}; are values of one output alike?"

    def test_contexts_make_different_weights(self) -> None:
        made = self._bound(self.context_dim).generate(self.sites, self._context(64))
        assert all(one.std(0).mean() > 0.1 for one in made)

    def test_sites_have_weights_of_their_own(self) -> None:
        twins = (self.sites[0], Site("twin", self.sites[0].op, self.sites[0].specs))
        first, second = self._bound(None, twins).generate(twins, None)
        assert not torch.allclose(first, second)

    def test_every_parameter_and_the_context_get_a_gradient(self) -> None:
        controller, context = self._bound(self.context_dim), self._context(2).requires_grad_()
        torch.cat(controller.generate(self.sites, context), -1).square().sum().backward()
        assert context.grad is not None and context.grad.abs().sum() > 0
        for name, parameter in controller.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_selected_sites_are_made_as_before(self) -> None:
        controller, context = self._bound(self.context_dim), self._context(2)
        before = controller.generate(self.sites[1:2], context)[0]
        controller.select(self.sites[1:2])
        _close(controller.generate(self.sites[1:2], context)[0], before)

    def test_what_select_leaves_is_as_if_bound_to_the_selected_sites_only(self) -> None:
        controller, other, context = self._bound(self.context_dim), self.make(), self._context(2)
        kept = (self.sites[2], self.sites[0])
        controller.select(kept)
        other.bind(kept, self.context_dim)
        other.load_state_dict(controller.state_dict())
        _close(other.generate(kept, context), controller.generate(kept, context))

    def test_it_can_be_written_down_and_made_again(self) -> None:
        made = self.make()
        described = json.loads(json.dumps(describe_module(made, complete=False)))
        again = make_module(described, trust=[type(made).__module__])
        assert isinstance(again, Controller)
        again.bind(self.sites, self.context_dim)
        controller, context = self._bound(self.context_dim), self._context(2)
        again.load_state_dict(controller.state_dict())
        _close(again.generate(self.sites, context), controller.generate(self.sites, context))

    def test_it_makes_double_precision_in_double_precision(self) -> None:
        controller, context = self._bound(self.context_dim).double(), self._context(2).double()
        assert all(made.dtype == torch.float64 for made in controller.generate(self.sites, context))

    def test_state_restores(self) -> None:
        controller = self._bound(self.context_dim)
        other = self.make()
        other.bind(self.sites, self.context_dim)
        other.load_state_dict(controller.state_dict())
        context = self._context(2)
        _close(other.generate(self.sites, context), controller.generate(self.sites, context))
