"""A formed weight that is not kept for the backward, where it is formed again: memory grows with one call alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..composed import Composed, tensors_of
from ..planning.modes import is_saving_watched

__all__ = ["formed_again"]

LARGE = 1 << 20
"""Bytes of a weight from which it is formed again; smaller ones are kept."""


class _View(NamedTuple):
    """What was saved of the weight."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt


def formed_again(weight: Composed, whole: Tensor) -> AbstractContextManager[Any]:
    """Return a block in which autograd, where it saves the formed weight, saves its parts instead.

    Where somebody else watches what is saved, as activation checkpointing does, or a graph is made, it does nothing.

    Raises
    ------
    RuntimeError
        In the backward: a part was changed in place meanwhile, as autograd says of what it has saved.
    """
    if not whole.requires_grad or whole.nbytes < LARGE or _is_watched():
        return nullcontext()
    place, versions = whole.untyped_storage()._cdata, _versions_of(weight)

    def pack(saved: Tensor) -> Any:
        if saved.layout is not torch.strided or saved.untyped_storage()._cdata != place:
            return saved
        return _View(saved.size(), saved.stride(), saved.storage_offset())

    def unpack(kept: Any) -> Any:
        if not isinstance(kept, _View):
            return kept
        if _versions_of(weight) != versions:
            raise RuntimeError(
                "One of the parts that a weight is formed of was modified by an inplace operation between forward and "
                "backward: call `backward` first."
            )
        with torch.no_grad():
            return weight.whole().as_strided(*kept)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _versions_of(weight: Composed) -> list[int]:
    return [part._version for part in tensors_of(weight).values()]


def _is_watched() -> bool:
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or is_saving_watched()
