"""What a run asks of the machine: each operator that it dispatches, how often, and the bytes that are alive at once."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["Operation", "Shaped", "Watch"]

FREE = frozenset({"detach", "lift_fresh", "_unsafe_view", "empty_like", "new_empty", "empty", "alias", "promote_types"})
"""Operators that move no values, besides views."""


@dataclass(frozen=True)
class Shaped:
    """A tensor that an operator is given."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str


class Operation(NamedTuple):
    """One operator and what it is given: two that are alike take the same time.

    Parameters
    ----------
    func
        Of torch's dispatcher.
    leaves, spec
        Its arguments as ``torch.utils._pytree`` takes them apart, tensors by shape.
    made, made_spec
        Its results; tensors are shapes.
    nbytes
        Of all tensors that go in and come out.
    """

    func: Any
    leaves: tuple[Hashable, ...]
    spec: Any
    made: tuple[Hashable, ...]
    made_spec: Any
    nbytes: int

    @property
    def multiply_adds(self) -> float:
        """By torch's formulas, for convolutions and matrix products; 0 for what has none."""
        formula = flop_registry.get(self.func.overloadpacket)
        if formula is None:
            return 0.0
        shapes = [torch.Size(one.shape) if isinstance(one, Shaped) else one for one in self.leaves]
        args, kwargs = pytree.tree_unflatten(shapes, self.spec)
        made = pytree.tree_unflatten(self.made, self.made_spec)
        return float(formula(*args, **kwargs, out_val=made)) / 2


class Watch(TorchDispatchMode):
    """Notes what runs inside the block.

    Attributes
    ----------
    operations
        How often each ran.
    peak
        Bytes of what was made in the block and lived at one time, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[Operation] = Counter()
        self.free = 0  # operators that only look at a tensor in another way
        self._alive = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {} if kwargs is None else kwargs
        result = func(*args, **given)
        if func.namespace != "prim":
            self._note(func, args, given, result)
            for one in pytree.tree_leaves(result):
                if isinstance(one, Tensor):
                    self._hold(one)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if func.is_view or func.overloadpacket.__name__ in FREE:
            self.free += 1
            return
        leaves, spec = pytree.tree_flatten((args, kwargs))
        made, made_spec = pytree.tree_flatten(result)
        nbytes = sum(one.nbytes for one in (*leaves, *made) if isinstance(one, Tensor))
        told = tuple(_told(one) for one in leaves)
        shapes = tuple(one.shape if isinstance(one, Tensor) else None for one in made)
        self.operations[Operation(func, told, spec, shapes, made_spec, nbytes)] += 1

    def _hold(self, one: Tensor) -> None:
        storage = one.untyped_storage()
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self._alive -= size


def _told(one: Any) -> Hashable:
    if isinstance(one, Tensor):
        return Shaped(tuple(one.shape), one.dtype, one.device.type)
    return one if isinstance(one, Hashable) else repr(one)
