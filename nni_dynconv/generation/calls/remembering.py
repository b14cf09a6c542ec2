"""What a network was last called with, by shape, so that whoever saves it has something to try it on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .calling import Call

__all__ = ["Example", "remembered"]

FEW = 1 << 16
"""Whole numbers are kept up to so many: not every one names something."""


class Seen(NamedTuple):
    """A tensor that was given.

    Parameters
    ----------
    shape, dtype
        Its own.
    values
        The tensor, where it holds few whole numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Tensor | None


class Example(NamedTuple):
    """A call, taken apart, so that tensors can be put in the places of others.

    Parameters
    ----------
    leaves, spec
        As ``torch.utils._pytree`` gives them; a tensor, or what is known of one.
    """

    leaves: list[Any]
    spec: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Example:
        return self

    def __reduce__(self) -> Any:
        return _forgotten, ()  # what it was called with stays in this process

    @classmethod
    def of(cls, call: Call) -> Example:
        """Return a call as it is."""
        return cls(*pytree.tree_flatten(tuple(call)))

    def drawn(self, batch: int | None = None) -> Call:
        """Return a call with tensors like those that were given, on the CPU.

        Parameters
        ----------
        batch
            Samples; as many as there were, where ``None``.
        """
        generator = torch.Generator().manual_seed(0)
        given = [one for one in self.leaves if isinstance(one, (Seen, Tensor))]
        total = given[0].shape[0] if given and len(given[0].shape) else None
        made = [_drawn(one, generator, total, batch) if isinstance(one, (Seen, Tensor)) else one for one in self.leaves]
        return Call(*pytree.tree_unflatten(made, self.spec))


def _forgotten() -> None:
    """Take the place of an example in another process."""


def remembered(call: Call, before: Example | None) -> Example | None:
    """Return a call with tensors by shape; what was remembered before, where they are no real ones."""
    leaves, spec = pytree.tree_flatten(tuple(call))
    tensors = [one for one in leaves if isinstance(one, Tensor)]
    if torch.compiler.is_compiling() or any(type(one) not in (Tensor, nn.Parameter) for one in tensors):
        return before
    return Example([_seen(one) if isinstance(one, Tensor) else one for one in leaves], spec)


def _seen(one: Tensor) -> Seen:
    counted = not (one.is_floating_point() or one.is_complex())
    return Seen(tuple(one.shape), one.dtype, one.detach() if counted and one.numel() <= FEW else None)


def _drawn(one: Any, generator: torch.Generator, total: int | None, batch: int | None) -> Tensor:
    values = one if isinstance(one, Tensor) else one.values
    if values is None and (one.dtype.is_floating_point or one.dtype.is_complex):
        made = torch.randn(one.shape, generator=generator).to(one.dtype)
    elif values is None:
        made = torch.zeros(one.shape, dtype=one.dtype)
    else:
        made = values.detach().cpu()
    if batch is None or total is None or not made.dim() or made.shape[0] != total:
        return made
    rows = torch.arange(batch) % total
    return made[rows]
