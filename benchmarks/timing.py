"""Timing side by side: contenders take turns in one process, so that what disturbs one disturbs all."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nni_dynconv.functional.planning.tuning import wait_for

__all__ = ["CPU", "Spread", "interleave", "keep_freed_memory", "machine", "merge_results", "ratio", "timed"]

Times = dict[str, list[float]]
CPU = torch.device("cpu")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


class Spread(NamedTuple):
    """A ratio: its median over the rounds, and the quarter of the rounds below and above."""

    median: float
    low: float
    high: float


def interleave(
    contenders: Mapping[str, Callable[[], Any]],
    seconds: float,
    *,
    least_rounds: int = 3,
    turn: float = 2e-3,
    patience: float = 0.25,
    clock: Callable[[], float] = time.perf_counter,
    device: torch.device = CPU,
) -> Times:
    """Run the contenders in turns and return the seconds per call of each in each round.

    Each round has an order of its own, drawn from one seed: what a turn leaves behind in caches, allocator and clock
    rate makes the next one up to a seventh faster or slower, and no contender shall always come after the same one.

    Parameters
    ----------
    contenders : mapping of str to callable
    seconds : float
        About how long all of it may take; at least ``least_rounds`` rounds are run.
    turn : float
        A turn is so many calls that it takes about this many seconds, and at least one. A call before it is not timed:
        it brings back to the caches what the others drove out of them.
    patience : float
        Who needs more seconds than this for a call makes two calls and no more: the second counts in every round.
    clock : callable
        Gives seconds; :func:`time.process_time` leaves out what other processes take, where one thread computes.
    device : torch.device
        Where they compute: it is waited for before and after each turn, not between the calls of a turn.
    """
    for one in contenders.values():
        one()  # what happens only the first time
    first = {name: timed(one, 1, device, clock) for name, one in contenders.items()}
    calls = {name: max(1, round(turn / max(once, 1e-7))) for name, once in first.items()}
    times: Times = {name: [] for name in contenders}
    names, draw = list(contenders), torch.Generator().manual_seed(0)
    end, rounds = clock() + seconds, 0
    while rounds < least_rounds or (min(first.values()) < patience and clock() < end):
        for name in (names[index] for index in torch.randperm(len(names), generator=draw)):
            if first[name] >= patience:
                times[name].append(first[name])
                continue
            contenders[name]()
            times[name].append(timed(contenders[name], calls[name], device, clock))
        rounds += 1
    return times


def timed(
    one: Callable[[], Any], calls: int, device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds that a call takes, by so many calls in a row."""
    wait_for(device)
    begin = clock()
    for _ in range(calls):
        one()
    wait_for(device)
    return (clock() - begin) / calls


def ratio(times: Times, of: str, over: str) -> Spread:
    """Time of ``of`` over time of ``over``, round by round."""
    ratios = sorted(a / b for a, b in zip(times[of], times[over], strict=True))
    quarter = len(ratios) // 4
    return Spread(statistics.median(ratios), ratios[quarter], ratios[-1 - quarter])


def keep_freed_memory() -> None:
    """Let the C allocator keep what is freed, for every contender alike; call it first (glibc only, elsewhere a no-op).

    Otherwise a large tensor goes back to the system as soon as it is freed, and the next one is paid for page by page.
    That costs more than a small convolution, varies with what else runs, and says nothing about the code.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap too
        mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks


def merge_results(path: str | Path, **sections: Any) -> None:
    """Write sections of a file of results and leave its others; a section that is a dict is merged key by key."""
    path = Path(path)
    results = json.loads(path.read_text()) if path.exists() else {}
    for name, section in sections.items():
        results[name] = {**results.get(name, {}), **section} if isinstance(section, dict) else section
    path.write_text(json.dumps(results, indent=1) + "\n")


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    about = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return about if device.type == "cpu" else {"device": str(device)} | _card(device) | about


def _card(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"card": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "card": torch.cuda.get_device_name(device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory, GiB": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
