"""How a search step grows: with candidates for a label (4, 40, 400), with the batch, with the kernel; on one thread.

Prints a line per row and writes them to a JSON file::

    python benchmarks/growth.py                   # about ten minutes
    python benchmarks/growth.py --quick           # about two minutes
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from supernets import Candidates, Problem, our_step
from timing import interleave, keep_freed_memory, machine, merge_results, ratio
from torch import nn

from nni_dynconv.ops import DynamicConv2d, DynamicSepConv

CANDIDATES = (4, 40, 400)
BATCHES = (8, 32, 128)
KERNELS = (3, 5, 7)
PATH_SAMPLERS = ("random", "gdas", "enas")
SIZE = {"B": 32, "C": 16, "HW": 32}


def main() -> None:
    arguments = _parse()
    keep_freed_memory()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for row in _rows(5.0 if arguments.quick else 25.0):
        rows.append(row)
        print(_summary(row), flush=True)
        merge_results(arguments.output, machines={"growth": machine()}, growth=rows)
    print(f"{len(rows)} rows in {arguments.output}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    parser.add_argument("--output", default="benchmarks/results.json")
    return parser.parse_args()


def _rows(seconds: float) -> Iterator[dict[str, Any]]:
    for context in ("shared", "per_sample"):
        for sampler, (kind, make) in itertools.product(PATH_SAMPLERS, (KINDS | AFFINE).items()):
            candidates = {count: Problem(partial(_alike, count, 3, make), **SIZE) for count in CANDIDATES}
            yield _measure(f"candidates, {kind}", candidates, sampler, context, seconds)
        for kind, make in KINDS.items():
            batches = {batch: Problem(partial(_alike, 4, 3, make), **{**SIZE, "B": batch}) for batch in BATCHES}
            yield _measure(f"batch, {kind}", batches, "random", context, seconds)
            kernels = {kernel: Problem(partial(_alike, 4, kernel, make), **SIZE) for kernel in KERNELS}
            yield _measure(f"kernel, {kind}", kernels, "random", context, seconds)


def _dense(C: int, K: int) -> nn.Module:
    """A candidate without any state of its own."""
    return DynamicConv2d(C, C, K, padding=K // 2, bias=False)


def _separable(C: int, K: int, affine: bool = False) -> nn.Module:
    """A candidate with a BatchNorm, which has no parameters of its own, as in DARTS while it searches."""
    return DynamicSepConv(C, C, K, norm=partial(nn.BatchNorm2d, affine=affine))


KINDS: dict[str, Callable[[int, int], nn.Module]] = {"dense": _dense, "separable": _separable}
AFFINE = {"separable with affine norms": partial(_separable, affine=True)}  # parameters that the optimizer goes through


def _alike(count: int, K: int, make: Callable[[int, int], nn.Module], C: int, dynamic: bool) -> Candidates:
    """Candidates of the same cost: what a step takes more with more of them is overhead."""
    return {f"op{number}": make(C, K) for number in range(count)}


def _measure(what: str, problems: dict[int, Problem], sampler: str, context: str, seconds: float) -> dict[str, Any]:
    steps = {str(value): our_step(one, sampler, context == "per_sample") for value, one in problems.items()}
    times = interleave(steps, seconds, turn=0, patience=float("inf"))
    first = next(iter(times))
    return {
        "with": what, "sampler": sampler, "context": context, **SIZE,
        "over_first": {value: round(ratio(times, value, first).median, 3) for value in times},
        "milliseconds": {value: round(1e3 * median(times[value]), 2) for value in times},
    }  # fmt: skip


def _summary(row: dict[str, Any]) -> str:
    steps = ", ".join(f"{value}: {over:.2f}x" for value, over in row["over_first"].items())
    first = next(iter(row["milliseconds"].values()))
    return f"with {row['with']:21} {row['sampler']:6} {row['context']:10} {steps} ({first:.1f} ms)"


if __name__ == "__main__":
    main()
