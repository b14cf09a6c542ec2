"""A device that stands in for a GPU, and a mode that refuses what a GPU would refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
ANY_DEVICE = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)  # copies from one to another


class OneDevice(TorchDispatchMode):
    """Fail where one operator gets tensors of several devices; the ``meta`` device itself lets many of them pass.

    As on a GPU a single number may come from the CPU, unless it is stacked with others.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        scalars = func not in (torch.ops.aten.stack.default, torch.ops.aten.cat.default)
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        devices = {one.device for one in tensors if one.dim() or not scalars}
        assert len(devices) < 2 or func in ANY_DEVICE, f"{func} got tensors of {devices}"
        return func(*args, **(kwargs or {}))
