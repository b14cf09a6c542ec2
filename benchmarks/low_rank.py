"""Weights given by factors: the kernel formed and convolved with, against the factors applied; on one thread.

Prints a line per kernel, width, base and rank, then the memory of one case::

    python benchmarks/low_rank.py                 # about ten minutes
    python benchmarks/low_rank.py --quick         # about a minute

A line has the time of forming over that of applying, forward and backward, for each batch and size of image: above 1,
applying is faster. It is the least of several turns, which other work on the machine disturbs the least. A star marks
where the planner applies. The planner's rule (``nni_dynconv/functional/planner.py``) comes from these.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from statistics import geometric_mean
from typing import Any

import torch
from timing import interleave, keep_freed_memory
from torch import Tensor

from nni_dynconv.functional import LowRank, conv2d
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.low_rank import apply_factors

KERNELS, CHANNELS, RANKS = (3, 5, 1), (16, 32, 64, 128), (2, 4, 8, 16)
PLACES = [(B, HW) for B in (8, 32, 128) for HW in (8, 16, 32)]
LARGEST = 1e10  # multiply-adds of one forward; larger cases are left out
CASE = {"K": 3, "C": 64, "B": 128, "HW": 16, "rank": 4}


def main() -> None:
    arguments = _parse()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    channels, places = ((16, 64), PLACES[1:6:3]) if arguments.quick else (CHANNELS, PLACES)
    print("time of forming / time of applying, at B x HW: " + ", ".join(f"{B} x {HW}" for B, HW in places))
    for K, C, base, rank in itertools.product(KERNELS, channels, (False, True), RANKS):
        if 2 * rank < C:  # the package makes no larger factors
            print(_line(K, C, base, rank, places, arguments.seconds), flush=True)
    for base in (False, True):
        formed, applied = (_held(way, base) / 1e6 for way in (_formed, _applied))
        print(
            f"{CASE}, {_name(base)}: {formed:.1f} MB kept for the backward when formed, {applied:.1f} MB when applied"
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two widths, two sizes")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each case; large ones take more")
    return parser.parse_args()


def _line(K: int, C: int, base: bool, rank: int, places: list[tuple[int, int]], seconds: float) -> str:
    cells, measured = [], []
    for B, HW in places:
        if B * HW * HW * C * C * K * K > LARGEST:
            cells.append("     -")
            continue
        over, picked = _measure(K, C, base, rank, B, HW, seconds)
        measured.append(over)
        cells.append(f"{over:5.2f}{picked}")
    mean = geometric_mean(measured)
    return (
        f"{K}x{K} C {C:3} {_name(base):8} rank {rank:2}: {mean:5.2f} ({min(measured):.2f} at least) {' '.join(cells)}"
    )


def _name(base: bool) -> str:
    return "base" if base else "no base"


def _measure(K: int, C: int, base: bool, rank: int, B: int, HW: int, seconds: float) -> tuple[float, str]:
    """Return the time of forming over that of applying, and a star where the planner applies."""
    x, weight = _problem(K, C, base, rank, B, HW)
    leaves, pull = [x, *(one for one in weight if one is not None)], torch.randn_like(x)
    ways = {"formed": _formed, "applied": _applied}
    times = interleave({name: _step(way, x, weight, leaves, pull) for name, way in ways.items()}, seconds, patience=0.1)
    picked = chosen(x.shape, weight.shape, padding=K // 2, rank=rank, base=base)[1].path == "applied"
    return min(times["formed"]) / min(times["applied"]), "*" if picked else " "


def _problem(K: int, C: int, base: bool, rank: int, B: int, HW: int) -> tuple[Tensor, LowRank]:
    shapes = [(B, C, HW, HW), (B, C, rank), (B, rank, C, K, K), *([(C, C, K, K)] if base else [])]
    x, *parts = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return x, LowRank(*parts)


def _step(way: Callable[..., Tensor], x: Tensor, weight: LowRank, leaves: list[Tensor], pull: Tensor) -> Any:
    return lambda: torch.autograd.grad(way(x, weight), leaves, pull)


def _formed(x: Tensor, weight: LowRank) -> Tensor:
    return conv2d(x, weight.whole(), padding=weight.shape[-1] // 2)


def _applied(x: Tensor, weight: LowRank) -> Tensor:
    return apply_factors(conv2d, x, weight, None, (1, weight.shape[-1] // 2, 1), None)


def _held(way: Callable[..., Tensor], base: bool) -> int:
    """Return the bytes that a forward keeps for its backward, x and the factors left out."""
    x, weight = _problem(base=base, **CASE)
    given, kept = {one.data_ptr() for one in _given(x, weight)}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        way(x, weight)
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    return sum(size for start, size in storages.items() if start not in given)


def _given(x: Tensor, weight: LowRank) -> Iterator[Tensor]:
    yield x
    yield from (part for part in weight if part is not None)


if __name__ == "__main__":
    main()
