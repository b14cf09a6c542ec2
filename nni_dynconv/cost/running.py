"""What one run costs, whatever runs: multiply-adds by torch's counter, and seconds by its timer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["by_turns", "multiply_adds", "seconds"]

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


@torch.no_grad()
def by_turns(runs: Sequence[Callable[[], Any]], rounds: int = 15) -> list[float]:
    """Return how long each of several runs takes on the CPU, the median, on one thread: they take turns.

    What slows the machine meets all of them, so their ratios stand where the seconds do not.

    Examples
    --------
    >>> one, other = by_turns([lambda: sum(range(10)), lambda: sum(range(10**5))], rounds=3)
    >>> one < other
    True
    """
    threads, taken = torch.get_num_threads(), [list[float]() for _ in runs]
    torch.set_num_threads(1)
    try:
        for _ in range(rounds + 1):
            for run, own in zip(runs, taken, strict=True):
                began = time.perf_counter()
                run()
                own.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return [median(own[1:]) for own in taken]
