"""Several processes that search one space together: all draw alike, and learn from what each of them measured.

Without a process group of ``torch.distributed``, nothing here does anything.
"""

from __future__ import annotations

import torch.distributed as dist

from ..processes import any_of, count, is_first, mean, number, of_all, of_first, share_statistics, together
from .base import Sampler

__all__ = ["agree", "any_of", "count", "is_first", "mean", "number", "of_all", "of_first", "share_statistics"]


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
    if not together():
        return
    state = [sampler.draw_state()]
    dist.broadcast_object_list(state, src=0)
    sampler.set_draw_state(state[0])
