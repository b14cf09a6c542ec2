"""A training step of a network, run on tensors that have shapes and no values: what it asks for, and in what memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from ...functional import imagined
from ...generation import DynamicNetwork, WeightSource
from ...sites import Site, scope
from .watching import Operation, Watch

__all__ = ["BY_VALUES", "Fakes", "Imagined", "Reals", "Step", "leaf_of", "leaves_of", "run_step"]

BY_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    UnsupportedFakeTensorException,
)
"""What torch raises where a network decides by values."""
Run = Callable[[], Any]
M = TypeVar("M", bound=nn.Module)


class Step(NamedTuple):
    """What a training step asks for.

    Parameters
    ----------
    operations
        How often each operator runs.
    free
        How many only look at a tensor in another way.
    forward
        Those of the forward.
    peak
        Bytes of what it makes and what lives at one time, at most: activations, weights, gradients.
    """

    operations: Counter[Operation]
    free: int
    forward: Counter[Operation]
    peak: int

    @property
    def multiply_adds(self) -> float:
        """Of the forward."""
        return sum(count * one.multiply_adds for one, count in self.forward.items())


class Fakes:
    """Makes copies that have shapes and no values, and opens blocks in which nothing has any."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode()

    def copied(self, module: M) -> M:
        """Return a copy of a module."""
        with FakeCopyMode(self.mode):
            return copy.deepcopy(module)

    def like(self, values: Any) -> Any:
        """Return tensors, in whatever holds them, without values."""
        return pytree.tree_map_only(Tensor, self.mode.from_tensor, values)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let what is made in the block have no values either."""
        with imagined(), self.mode:
            yield


class Reals(Fakes):
    """Copies with values, for a network that decides by them."""

    def __init__(self) -> None:
        """No tensors are fake."""

    def copied(self, module: M) -> M:
        return copy.deepcopy(module)

    def like(self, values: Any) -> Any:
        return pytree.tree_map_only(Tensor, lambda one: one.detach().clone(), values)

    @contextmanager
    def inside(self) -> Iterator[None]:
        yield


class Imagined:
    """A copy of a network and of what it is called with, in training mode.

    Parameters
    ----------
    network
        It stays as it is.
    args, kwargs
        What it is called with.
    fakes
        Makes the copy, without values by default.
    """

    def __init__(
        self, network: DynamicNetwork, args: Sequence[Any], kwargs: Mapping[str, Any], fakes: Fakes | None = None
    ):
        self.fakes = Fakes() if fakes is None else fakes
        self.inside = self.fakes.inside
        self.network = self.fakes.copied(network).train()
        self.args, self.kwargs = self.fakes.like((tuple(args), dict(kwargs)))

    def step(self) -> Step:
        """Run one with weights that are made."""
        with self.inside():
            return run_step(lambda: self.network(*self.args, **self.kwargs), self.network.parameters)

    def step_given(self) -> Step:
        """Run one with weights of the samples' own that somebody else has made, as leaves that want gradients."""
        source, made, codes = self.network.source, dict[str, Any](), list[Any]()
        with self.inside():
            noting = {"make_factored": _noting(source.make_factored, made), "_code": _kept(source._code, codes)}
            with _replaced(source, **noting):
                self.network(*self.args, **self.kwargs)
            leaves, known = {name: leaf_of(one) for name, one in made.items()}, iter([leaf_of(one) for one in codes])
            given = {"make_factored": lambda sites, code: [leaves[site.name] for site in sites]}
            with _replaced(source, **given, _code=lambda *_: next(known)):
                return run_step(lambda: self.network(*self.args, **self.kwargs), self.network.parameters)

    def step_static(self) -> Step:
        """Run one with one set of weights for all samples, each a leaf, as an ordinary network has them."""
        with self.inside():
            return run_step(self.static_run(), self.network.parameters)

    def static_run(self) -> Run:
        """Return what runs a forward with one set of weights for all samples; call it :meth:`inside`."""
        network, source = self.network, self.network.source
        device = next((one.device for one in pytree.tree_leaves(self.args) if isinstance(one, Tensor)), None)
        made = {name: leaves_of(site, device) for name, site in source.sites.items()}
        called = network.takes.call(self.args, self.kwargs, source.of_context is not None)

        def run() -> Any:
            with scope.enter(source.given(made)):
                return network.network(*called.args, **called.kwargs)

        return run


def run_step(forward: Run, parameters: Callable[[], Any]) -> Step:
    """Run a forward, its backward from the sum of what comes out, and a plain step of the parameters."""
    with Watch() as watch:
        loss = _loss(forward())
        ahead = Counter(watch.operations)
        if loss is not None:
            loss.backward()
            _update([one for one in parameters() if one.grad is not None])
    return Step(watch.operations, watch.free, ahead, watch.peak)


def _loss(output: Any) -> Tensor | None:
    parts = [one.sum() for one in pytree.tree_leaves(output) if isinstance(one, Tensor) and one.requires_grad]
    return sum(parts[1:], parts[0]) if parts else None


@torch.no_grad()
def _update(parameters: Sequence[nn.Parameter]) -> None:
    for one in parameters:
        one.add_(one.grad, alpha=-1e-3)  # type: ignore[arg-type]
        one.grad = None


def _noting(make: Callable[..., Any], made: dict[str, Any]) -> Callable[..., Any]:
    def make_factored(sites: Any, code: Any) -> Any:
        found = make(sites, code)
        made.update(zip((site.name for site in sites), found, strict=True))
        return found

    return make_factored


def _kept(encode: Callable[..., Any], codes: list[Any]) -> Callable[..., Any]:
    def code(*given: Any) -> Any:
        codes.append(encode(*given))
        return codes[-1]

    return code


@contextmanager
def _replaced(source: WeightSource, **methods: Any) -> Iterator[None]:
    vars(source).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(source)[name]


def leaves_of(site: Site, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return the tensors of a site as an ordinary layer has them, which all samples share."""
    return {spec.name: torch.ones(spec.shape, device=device, requires_grad=True) for spec in site.specs}


def leaf_of(made: Any) -> Any:
    """Return a tensor, or what is made of several, as leaves that want gradients."""
    if isinstance(made, Tensor):
        return made.detach().requires_grad_()
    if isinstance(made, Mapping):
        return {name: leaf_of(one) for name, one in made.items()}
    return type(made)(*map(leaf_of, made)) if isinstance(made, tuple) else made
