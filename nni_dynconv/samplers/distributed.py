"""Several processes that search one space together: all draw alike, and learn from what each of them measured.

Without a process group of ``torch.distributed``, nothing here does anything.
"""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch import nn

from .base import Sampler

__all__ = ["agree", "any_of", "count", "is_first", "mean", "number", "of_all", "of_first", "share_statistics"]

Value = TypeVar("Value")


def agree(sampler: Sampler) -> None:
    """Let every process draw what the first one is about to draw, whatever each has drawn before.

    What its draws depend on is broadcast: 5 KB for the generator's state, and what a sampler such as ``FairSampler``
    has besides. The draws that follow are the same, noise and all, as long as the parameters are:
    ``DistributedDataParallel`` takes care of those that it was given.

    Parameters
    ----------
    sampler
        Of each process's own mutator. Every process has to call this; call it before each ``mutator.reset()``.

    Examples
    --------
    >>> from nni_dynconv import RandomSampler
    >>> sampler = RandomSampler(seed=0)
    >>> agree(sampler)  # one process agrees with itself
    """
    if not _together():
        return
    state = [sampler.draw_state()]
    dist.broadcast_object_list(state, src=0)
    sampler.set_draw_state(state[0])


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
    if not _together():
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
    if not _together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def count() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _together() else 1


def number() -> int:
    """Return which of them this one is, from 0 on."""
    return dist.get_rank() if _together() else 0


def is_first() -> bool:
    """Whether this is the first process, or the only one: it tells and writes for all."""
    return number() == 0


def share_statistics(network: nn.Module) -> None:
    """Give every process the running statistics, and other buffers, of the first one. Every process has to call this.

    Each gathers its own between two forwards of ``DistributedDataParallel``, which shares them before each.
    """
    if not _together():
        return
    buffers = list(network.buffers())
    for buffer, value in zip(buffers, of_first([one.cpu() for one in buffers]), strict=True):
        buffer.data.copy_(value)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
