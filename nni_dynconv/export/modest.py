"""What is made of a file is no larger than the file: a size in it that is wrong must not take all memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import ExportError

__all__ = ["Modest"]

TIMES, LEAST = 8, 2**22
"""As many values as the tensors of a file has one that is made may have, or so many."""
STEPS = 5_000, 50
"""Operators to make what is in a file, so many and so many for each of its tensors; one takes 4 to 7."""


class Modest(TorchDispatchMode):
    """For a block, refuse to make a tensor that is much larger than all of a file's.

    Parameters
    ----------
    values
        Of all tensors in the file.
    tensors
        How many these are.

    Raises
    ------
    ExportError
        One is, or the making finds no end.
    """

    def __init__(self, values: int, tensors: int):
        super().__init__()
        self._most, self._done = max(TIMES * values, LEAST), 0
        self._steps = STEPS[0] + STEPS[1] * tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options, self._done = dict(kwargs or {}), self._done + 1
        if self._done > self._steps:
            raise ExportError(f"It describes layers that take more than {self._steps} operators to be made.")
        sizes = args[1] if _makes_like(func) and len(args) > 1 else args[0] if args else None
        if isinstance(sizes, (list, tuple)) and all(isinstance(one, int) for one in sizes):
            self._check(sizes, options, args)
        elif args and isinstance(args[0], int) and not isinstance(args[0], bool):
            self._check(args[:1], options, args)
        return func(*args, **options)

    def _check(self, sizes: Any, options: Mapping[str, Any], args: Any) -> None:
        tensors = [one for one in pytree.tree_leaves(args) if isinstance(one, Tensor)]
        device = torch.device(options.get("device") or (tensors[0].device if tensors else "cpu"))
        if device.type != "meta" and prod(map(abs, sizes)) > self._most:
            raise ExportError(f"It describes a tensor of {tuple(sizes)}, of which its file has no room for the values.")


def _makes_like(func: Any) -> bool:
    """Whether an operator takes a tensor, and the sizes of one to make; others take lists that are no sizes."""
    name = func.overloadpacket.__name__
    return name.startswith("new_") or name == "resize_"
