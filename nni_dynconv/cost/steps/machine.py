"""How fast this machine runs an operator: measured once in a process, where one of its sizes is first asked for.

Convolutions, products and whatever moves many values are run alone, on few samples; all else costs a call.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...functional import wait_for
from .fewer import fewer
from .watching import Operation, Shaped, Watch

__all__ = ["Machine", "machine"]

RUNS = 3  # of which the shortest counts: what disturbs only adds
FEW = 1 << 15  # bytes that move in the time of a call
MOST = 1 << 23  # bytes of an operator that is measured,
MOST_MULTIPLY_ADDS = 1 << 24  # and its multiply-adds: a millisecond or so
CALLS = 200  # of a small operator, to learn what a call takes


class Machine:
    """What this machine takes for operators, on as many threads as torch has.

    Attributes
    ----------
    spent
        Seconds that measuring has taken so far.
    """

    def __init__(self) -> None:
        self._known: dict[Any, float | None] = {}
        self._lock = threading.Lock()
        self.spent = 0.0

    def seconds(self, operations: Counter[Operation], free: int = 0) -> float:
        """Return how long operators take, one after the other.

        Parameters
        ----------
        operations
            How often each runs.
        free
            How many only look at a tensor in another way.
        """
        taken = sum(count * self.of(one) for one, count in operations.items())
        return taken + free * self._asked("view", _measure_view)

    def of(self, operation: Operation) -> float:
        """Return how long one operator takes."""
        work = operation.multiply_adds
        if not work and operation.nbytes <= FEW:
            return self._asked("call", _measure_call)
        times = max(operation.nbytes / MOST, work / MOST_MULTIPLY_ADDS)
        for part, share in (fewer(operation, times), (operation, 1.0)):
            kind = _kind_of(part), share < 1, torch.get_num_threads()
            taken = self._asked(kind, partial(_measure, part, share < 1))
            if taken is not None:
                return max(taken / share, self._asked("call", _measure_call))
        return operation.nbytes * self._asked("byte", _measure_byte)

    def _asked(self, key: Any, measure: Callable[[], float | None]) -> Any:
        with self._lock:
            if key not in self._known:
                began = time.perf_counter()
                self._known[key] = measure()
                self.spent += time.perf_counter() - began
            return self._known[key]


def _kind_of(operation: Operation) -> Any:
    return operation.func, operation.leaves, operation.spec


# Measuring


def _measure(operation: Operation, is_part: bool) -> float | None:
    """Return how long it takes alone; ``None`` where it does not run on tensors that are only of the right shapes."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return _timed(operation, is_part)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def _real(operation: Operation) -> Any:
    leaves = [_tensor(one) if isinstance(one, Shaped) else one for one in operation.leaves]
    return pytree.tree_unflatten(leaves, operation.spec)


def _tensor(one: Shaped) -> Tensor:
    if one.dtype.is_floating_point or one.dtype.is_complex:
        return torch.full(one.shape, 0.5, dtype=one.dtype, device=one.device)
    return torch.zeros(one.shape, dtype=one.dtype, device=one.device)


def _timed(operation: Operation, is_part: bool) -> float:
    """Return the shortest of some runs, each on tensors of its own: in a step they come from elsewhere, not the cache.

    A part runs on the same ones again: what all parts read, such as a weight, the whole loads once.
    """
    device = next((one.device for one in operation.leaves if isinstance(one, Shaped)), "cpu")
    args, kwargs = _real(operation)
    operation.func(*args, **kwargs)
    runs = [(args, kwargs)] * RUNS if is_part else [_real(operation) for _ in range(RUNS)]
    return min(_once(partial(operation.func, *one, **named), device) for one, named in runs)


def _once(run: Callable[[], Any], device: str = "cpu") -> float:
    """Return the seconds of a run: of one thread those that it has computed, which other programs hardly change."""
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait_for(torch.device(device))
    began = clock()
    run()
    wait_for(torch.device(device))
    return clock() - began


def _measure_call() -> float:
    """Return what a small operator takes, the mean of some that controllers are made of, forward and backward."""
    weight = torch.ones(8, 8, requires_grad=True)

    def run() -> None:
        x = torch.ones(4, 8)
        for _ in range(CALLS // 10):
            x = torch.cat([(x @ weight).relu() * 0.5 + x, x])[:4]
            x = x / x.sum(1, keepdim=True)
        x.sum().backward()

    with Watch() as watch:
        run()
    taken = min(_once(run) for _ in range(RUNS)) - watch.free * _measure_view()
    return max(taken, 0.0) / sum(watch.operations.values())


def _measure_view() -> float:
    x = torch.ones(8, requires_grad=True)

    def run() -> None:
        y = x
        for _ in range(CALLS):
            y = y.view(8)

    return min(_once(run) for _ in range(RUNS)) / CALLS


def _measure_byte() -> float:
    """Return what a byte costs that goes through an operator of one pass."""
    x = torch.ones(MOST // 8)
    return min(_once(lambda: x + 1.0) for _ in range(RUNS)) / (2 * x.nbytes)


machine = Machine()
