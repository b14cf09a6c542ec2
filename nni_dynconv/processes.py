"""Several processes of ``torch.distributed`` that work together: what each has, and which one is the first.

Without a process group nothing here does anything. NNI is not loaded by it, for what reads a saved network needs none.
"""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch import nn

__all__ = ["any_of", "count", "is_first", "mean", "number", "of_all", "of_first", "share_statistics", "together"]

Value = TypeVar("Value")


def mean(value: float) -> float:
    """Return the mean over all processes, the same bits in each: what a sampler should observe.

    Parameters
    ----------
    value
        Measured by this process. Every process has to call this.

    Examples
    --------
    >>> mean(0.5)
    0.5
    """
    values = of_all(value)
    return sum(values) / len(values)


def any_of(mine: bool) -> bool:
    """Return whether it is so in any process. Every process has to call this.

    Examples
    --------
    >>> any_of(False), any_of(True)
    (False, True)
    """
    return mean(float(mine)) > 0


def of_all(value: Value) -> list[Value]:
    """Return what each process has, in their order. Every process has to call this.

    Examples
    --------
    >>> of_all("mine")
    ['mine']
    """
    if not together():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def of_first(value: Value) -> Value:
    """Return what the first process has. Every process has to call this.

    Examples
    --------
    >>> of_first("mine")
    'mine'
    """
    if not together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def count() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if together() else 1


def number() -> int:
    """Return which of them this one is, from 0 on."""
    return dist.get_rank() if together() else 0


def is_first() -> bool:
    """Whether this is the first process, or the only one: it tells and writes for all."""
    return number() == 0


def share_statistics(network: nn.Module) -> None:
    """Give every process the running statistics, and other buffers, of the first one. Every process has to call this.

    Each gathers its own between two forwards of ``DistributedDataParallel``, which shares them before each.
    """
    if not together():
        return
    buffers = list(network.buffers())
    for buffer, value in zip(buffers, of_first([one.cpu() for one in buffers]), strict=True):
        buffer.data.copy_(value)


def together() -> bool:
    """Whether there are several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
