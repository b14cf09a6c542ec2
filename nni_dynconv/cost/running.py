"""What one run costs, whatever runs: multiply-adds by torch's counter, and seconds by its timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["multiply_adds", "seconds"]

RUNS = 5


@torch.no_grad()
def multiply_adds(run: Callable[[], Any]) -> float:
    """Return the multiply-adds of the convolutions and linear maps of a run, by torch's ``FlopCounterMode``.

    Examples
    --------
    >>> layer = torch.nn.Linear(3, 5)
    >>> multiply_adds(lambda: layer(torch.ones(2, 3)))
    30.0
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


@torch.no_grad()
def seconds(run: Callable[[], Any]) -> float:
    """Return how long a run takes, the shortest of five, by torch's ``Timer``, which waits for a GPU.

    All threads run that torch has.
    """
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.timeit(1).mean for _ in range(RUNS))
