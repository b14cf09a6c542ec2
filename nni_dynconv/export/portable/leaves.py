"""Which modules of a network stay layers in a file, and how each is run on tensors without values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import SymInt, Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ...ops import DynamicCall, DynamicOp
from ...sites import order_told
from ..allowed import OURS, TORCHS, is_allowed, name_of
from ..modules import describe_module
from .tracing import FACTOR, Tracer

__all__ = ["Leaf", "leaves_of"]

Describe = Callable[[nn.Module, tuple[Any, ...]], dict[str, Any]]


class Leaf:
    """A module that stays a layer.

    Parameters
    ----------
    module, path
        What and where.
    description
        As of :func:`~nni_dynconv.export.modules.describe_module`; ``None`` until it runs, where that has to be seen.
    describe
        Writes a module by what it does with inputs.
    """

    def __init__(self, module: nn.Module, path: str, description: dict[str, Any] | None, describe: Describe):
        self.module, self.path, self.description = module, path, description
        self.describe, self.forward = describe, module.forward

    def told(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what it is called with, and what it, or a block around it, says of repeated samples."""
        if not isinstance(self.module, DynamicOp):
            return kwargs
        told = kwargs.get("repeats") or order_told() or self.module.repeats
        return kwargs if told is None else {**kwargs, "repeats": told}

    def run(self, tracer: Tracer, args: Any, kwargs: Any) -> tuple[Any, list[list[Any]]]:
        """Run it on tensors without values, twice, of two sizes: what is the same both times is a number.

        Returns
        -------
        What it gives, with open sizes, and of each tensor the sizes: a number, ``"same"`` where it is that of the first
        input along the axis, or a symbol.
        """
        small = self._run(*_concrete(tracer, args, kwargs, 1))
        try:
            large = self._run(*_concrete(tracer, args, kwargs, FACTOR))
        except (RuntimeError, ValueError):  # of sizes that are not open, as the channels of an image: it tells which
            self._run(args, kwargs)
            large = self._large(tracer, args, kwargs)
        like = next((one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)), None)
        first, spec = pytree.tree_flatten(small)
        opened = [self._opened(tracer, a, b, like) for a, b in zip(first, pytree.tree_leaves(large), strict=True)]
        return pytree.tree_unflatten([one for one, _ in opened], spec), [sizes for _, sizes in opened]

    def _large(self, tracer: Tracer, args: Any, kwargs: Any) -> Any:
        try:
            return self._run(*_concrete(tracer, args, kwargs, FACTOR))
        except (RuntimeError, ValueError):  # a product of sizes is not open: none of them is then
            tracer.pin([one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)])
            return self._run(*_concrete(tracer, args, kwargs, FACTOR))

    def _run(self, args: Any, kwargs: Any) -> Any:
        if not isinstance(self.module, DynamicOp):
            return self.forward(*args, **kwargs)
        if self.description is None:
            self.description = self._of_call(self.module, args, kwargs)
        if kwargs.get("params") is None and len(args) < 2:
            x = next(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
            made = {one.name: torch.empty(one.shape, dtype=x.dtype) for one in self.module.weight_specs()}
            kwargs = {**kwargs, "params": made}
        return self.forward(*args, **kwargs)

    def _of_call(self, op: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        """Describe a :class:`DynamicCall` by its module."""
        whole = copy.deepcopy(op.module)
        for name, shape in op.shapes.items():
            whole._parameters[name] = nn.Parameter(torch.zeros(shape))
        inside = _described(whole, self.path) if is_allowed(name_of(type(whole))) else None
        if inside is None:
            given = next(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
            inside = self.describe(whole, (torch.zeros(given.shape, dtype=given.dtype),))
        return {"class": name_of(DynamicCall), "args": {"module": {"module": inside}}}

    def _opened(self, tracer: Tracer, small: Any, large: Any, like: Tensor | None) -> tuple[Any, list[Any]]:
        if not isinstance(small, Tensor):
            if small != large:
                raise ExportError(f"`{self.path}` returns {small!r} or {large!r}, which is no tensor.")
            return small, []
        sizes: list[int | SymInt] = list(small.shape)
        known: list[Any] = list(small.shape)
        for axis, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)):
            if a != b:
                same = _same(tracer, like, axis, (a, b))
                sizes[axis] = tracer.symbol(a) if same is None else same
                known[axis] = sizes[axis].node.expr if same is None else "same"  # type: ignore[union-attr]
        return torch.empty(sizes, dtype=small.dtype), known


def _concrete(tracer: Tracer, args: Any, kwargs: Any, factor: int) -> Any:
    return pytree.tree_map(lambda one: tracer.concrete(one, factor), (args, kwargs))


def _same(tracer: Tracer, like: Tensor | None, axis: int, sizes: tuple[int, int]) -> Any:
    """Return the size of the first input along the same axis, where both times it is the output's."""
    if like is None or axis >= like.dim():
        return None
    size = like.shape[axis]
    return size if (tracer.concrete(size, 1), tracer.concrete(size, FACTOR)) == sizes else None


def leaves_of(network: nn.Module, describe: Describe) -> dict[nn.Module, Leaf]:
    """Find the modules of a network that stay layers: dynamic ops, and torch's own that can be made again.

    Raises
    ------
    ExportError
        A dynamic op does not keep its arguments.
    """
    found: dict[nn.Module, Leaf] = {}

    def visit(module: nn.Module, path: str) -> None:
        leaf = _leaf(module, path, describe)
        if leaf is not None:
            found.setdefault(module, leaf)
            return
        for name, child in module.named_children():
            visit(child, f"{path}.{name}".lstrip("."))

    for name, child in network.named_children():  # itself is run
        visit(child, name)
    return found


def _leaf(module: nn.Module, path: str, describe: Describe) -> Leaf | None:
    if isinstance(module, DynamicCall):
        return Leaf(module, path, None, describe)
    if isinstance(module, DynamicOp):
        return Leaf(module, path, describe_module(module, path), describe)
    single = name_of(type(module)) in TORCHS and next(module.children(), None) is None
    if not (single or name_of(type(module)) in OURS) or "forward" in vars(module):
        return None
    description = _described(module, path)
    return None if description is None else Leaf(module, path, description, describe)


def _described(module: nn.Module, path: str) -> dict[str, Any] | None:
    try:
        return describe_module(module, path)
    except ExportError:
        return None
