"""An operator with fewer samples, sets, groups or rows: what stands for all of it where its rate is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .watching import Operation, Shaped

__all__ = ["fewer"]

aten, own = torch.ops.aten, torch.ops.nni_dynconv
CONVOLUTIONS = {aten.convolution: (0, 1, 8), aten.convolution_backward: (1, 2, 9)}  # places of x, weight and groups
KERNELS = (own.convolution, own.convolution_backward)  # x, weight and what came out
PRODUCTS = {aten.mm: (0, 1), aten.addmm: (1, 2)}  # places of both factors
Part = tuple[Operation, float]


def fewer(operation: Operation, times: float) -> Part:
    """Return an operator that does about so many times less, and which share that is; itself where it is small already.

    That is by samples or groups of a convolution, by the longest axis of a product, and by the first axis, or the
    longest, of anything else. It may be one that does not run, where other arguments say sizes.
    """
    has_place = "out" in pytree.tree_unflatten(list(operation.leaves), operation.spec)[1]  # which has the whole's size
    if times <= 1 or has_place:
        return operation, 1.0
    kind = operation.func.overloadpacket
    if kind in CONVOLUTIONS:
        return _of_convolution(operation, times, *CONVOLUTIONS[kind])
    if kind in KERNELS:
        return _of_kernel(operation, times)
    if kind in PRODUCTS:
        return _of_product(operation, times, *PRODUCTS[kind])
    return _of_axis(operation, times)


def _of_convolution(operation: Operation, times: float, x: int, weight: int, groups: int) -> Part:
    """Of one sample, whose channels may be those of many, take groups."""
    args = _arguments(operation)
    B, G = args[x].shape[0], args[groups]
    tensors = {place for place, one in enumerate(args) if isinstance(one, Shaped) and len(one.shape) > 1}
    if B > 1 or G == 1:
        few = _share(B, times)
        return _changed(operation, {place: _first(args[place], few) for place in tensors - {weight}}, few / B)
    few = _share(G, times)
    rows = _first(args[weight], args[weight].shape[0] // G * few)
    channels = {place: _second(args[place], args[place].shape[1] // G * few) for place in tensors - {weight}}
    return _changed(operation, {**channels, weight: rows, groups: few}, few / G)


def _of_kernel(operation: Operation, times: float) -> Part:
    x, weight, *others = [one for one in _arguments(operation) if isinstance(one, Shaped)]
    B, D = x.shape[0], weight.shape[0] if len(weight.shape) > len(x.shape) else 1
    each = B // D
    sets = _share(D, times)
    samples = sets * each if D > 1 else _share(B, times)
    changed = {0: _first(x, samples), **{2 + k: _first(one, samples) for k, one in enumerate(others)}}
    return _changed(operation, changed | ({1: _first(weight, sets)} if D > 1 else {}), samples / B)


def _of_product(operation: Operation, times: float, left: int, right: int) -> Part:
    args = _arguments(operation)
    (m, k), n = args[left].shape, args[right].shape[1]
    longest = max(m, k, n)
    few = _share(longest, times)
    m, k, n = (few if size == longest else size for size in (m, k, n))
    changed = {left: replace(args[left], shape=(m, k)), right: replace(args[right], shape=(k, n))}
    return _changed(operation, changed | ({0: replace(args[0], shape=(n,))} if left else {}), few / longest)


def _of_axis(operation: Operation, times: float) -> Part:
    """Cut the axis of the largest tensor, counted from behind as broadcasting does."""
    shapes = [one.shape for one in operation.leaves if isinstance(one, Shaped) and one.shape]
    if not shapes:
        return operation, 1.0
    largest = max(shapes, key=lambda shape: torch.Size(shape).numel())
    axis = 0 if largest[0] >= times else max(range(max(1, len(largest) - 1)), key=largest.__getitem__)
    few, size, behind = _share(largest[axis], times), largest[axis], len(largest) - axis

    def cut(one: Any) -> Any:
        if not isinstance(one, Shaped) or len(one.shape) < behind or one.shape[-behind] != size:
            return one
        return replace(one, shape=(*one.shape[:-behind], few, *one.shape[len(one.shape) - behind + 1 :]))

    return operation._replace(leaves=tuple(map(cut, operation.leaves))), few / size


def _arguments(operation: Operation) -> Any:
    return pytree.tree_unflatten(list(operation.leaves), operation.spec)[0]


def _changed(operation: Operation, changes: Mapping[int, Any], share: float) -> Part:
    """Return it with other arguments, by place."""
    args, kwargs = pytree.tree_unflatten(list(operation.leaves), operation.spec)
    args = tuple(changes.get(place, one) for place, one in enumerate(args))
    leaves, spec = pytree.tree_flatten((args, kwargs))
    return operation._replace(leaves=tuple(leaves), spec=spec), share


def _share(size: int, times: float) -> int:
    return max(1, round(size / times))


def _first(one: Shaped, size: int) -> Shaped:
    return replace(one, shape=(size, *one.shape[1:]))


def _second(one: Shaped, size: int) -> Shaped:
    return replace(one, shape=(one.shape[0], size, *one.shape[2:]))
