"""A device that stands in for a GPU, and a mode that refuses what a GPU would refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)  # from one device to another
JOINS = (torch.ops.aten.stack.default, torch.ops.aten.cat.default)
READ = torch.ops.aten._local_scalar_dense.default


class OneDevice(TorchDispatchMode):
    """Fail where one operator gets tensors of several devices; the ``meta`` device itself lets many of them pass.

    As on a GPU a single number may come from the CPU, unless it is stacked with others. What is read from the device,
    which has no values, is one.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        devices = {one.device for one in tensors if one.dim() or func in JOINS}
        assert len(devices) < 2 or func in COPIES, f"{func} got tensors of {devices}"
        if META in {one.device for one in tensors}:
            if func is READ:
                return 1.0 if tensors[0].is_floating_point() else 1
            if func in COPIES and (kwargs.get("device") or args[0].device).type == "cpu":
                return torch.ones(tensors[-1].shape, dtype=kwargs.get("dtype") or tensors[-1].dtype)
        return func(*args, **kwargs)
