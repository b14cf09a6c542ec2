"""Weights given by factors: the weight formed and then used, against the factors applied; on one thread.

Prints a line per kernel, or linear map, with its width, base and rank, then the memory of one case::

    python benchmarks/low_rank.py                 # about a quarter of an hour
    python benchmarks/low_rank.py --quick         # about a minute
    python benchmarks/low_rank.py --op linear     # linear maps only

A line has the CPU time of forming over that of applying, forward and backward, for each batch and size of image, or
number of rows of each sample that a linear map takes: above 1, applying is faster. It is the least of several turns,
which other work on the machine disturbs the least. A star marks where the planner applies. The planner's rule
(``nni_dynconv/functional/planning/composed.py``) comes from these.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch
from timing import interleave, keep_freed_memory
from torch import Tensor

from nni_dynconv.functional import LowRank, conv2d, linear
from nni_dynconv.functional.calling import find_plan, make_plan, run
from nni_dynconv.functional.explain import chosen

KERNELS, CHANNELS, RANKS = (3, 5, 1), (16, 32, 64, 128), (2, 4, 8, 16)
PLACES = [(B, HW) for B in (8, 32, 128) for HW in (8, 16, 32)]
MAPS = ((16, 16), (32, 32), (64, 64), (128, 32), (256, 256), (512, 512))  # channels in, out
ROWS = [(8, 1), (64, 1), (8, 16), (64, 16), (8, 64), (64, 64), (16, 256)]  # samples, rows of each
LARGEST = 1e10  # multiply-adds of one forward; larger cases are left out
LARGEST_WEIGHTS = 3e7  # values of all weights formed


class Case(NamedTuple):
    """One call whose weight is given by factors."""

    op: Callable[..., Tensor]
    x: tuple[int, ...]
    weight: tuple[int, ...]  # of one sample
    rank: int
    base: bool
    shared: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Of the op: the padding that keeps the size."""
        return {} if self.op is linear else {"padding": self.weight[-1] // 2}


# for the memory: kernels twice as large as the activations, which is where forming them shows
HELD = {"x": (128, 64, 16, 16), "weight": (64, 64, 3, 3), "rank": 4}


def main() -> None:
    arguments = _parse()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.op != "linear":
        _compare_convolutions(arguments.quick, arguments.seconds)
        _compare_memory()
    if arguments.op != "conv2d":
        _compare_maps(arguments.quick, arguments.seconds)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two widths, two sizes")
    parser.add_argument("--op", choices=("conv2d", "linear"), help="these only")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each case; large ones take more")
    return parser.parse_args()


def _compare_convolutions(quick: bool, seconds: float) -> None:
    channels, places = ((16, 64), PLACES[1:6:3]) if quick else (CHANNELS, PLACES)
    print("time of forming / time of applying, at B x HW: " + ", ".join(f"{B} x {HW}" for B, HW in places))
    for K, C, base, rank in itertools.product(KERNELS, channels, (False, True), RANKS):
        if 2 * rank < C:  # the package makes no larger factors
            cases = [Case(conv2d, (B, C, HW, HW), (C, C, K, K), rank, base) for B, HW in places]
            print(f"{K}x{K} C {C:3} {_name(base)} rank {rank:2}: {_compare(cases, seconds)}", flush=True)


def _compare_maps(quick: bool, seconds: float) -> None:
    maps, rows = (MAPS[:4:2], ROWS[1:5:2]) if quick else (MAPS, ROWS)
    print("time of forming / time of applying, at B x rows: " + ", ".join(f"{B} x {N}" for B, N in rows))
    for shared, (Cin, Cout), base, rank in itertools.product((False, True), maps, (False, True), RANKS):
        if rank * (Cin + Cout) < Cin * Cout:
            cases = [Case(linear, (B, N, Cin), (Cout, Cin), rank, base, shared) for B, N in rows]
            name = f"linear, {'shared' if shared else 'own'}, {Cin:3} to {Cout:3}"
            print(f"{name} {_name(base)} rank {rank:2}: {_compare(cases, seconds)}", flush=True)


def _name(base: bool) -> str:
    return "base   " if base else "no base"


def _compare(cases: list[Case], seconds: float) -> str:
    """Say for each case the time of forming over that of applying, with a star where the planner applies."""
    cells, measured = [], []
    for case in cases:
        if _work(case) > LARGEST or (not case.shared and case.x[0] * math.prod(case.weight) > LARGEST_WEIGHTS):
            cells.append("     -")
            continue
        measured.append(_measure(case, seconds))
        cells.append(f"{measured[-1]:5.2f}{'*' if _applies(case) else ' '}")
    return f"{geometric_mean(measured):5.2f} ({min(measured):.2f} at least) {' '.join(cells)}"


def _work(case: Case) -> int:
    return math.prod(case.x) * math.prod(case.weight) // case.weight[1]


def _applies(case: Case) -> bool:
    weight = case.weight if case.shared else (case.x[0], *case.weight)
    given = {"op": case.op.__name__, "rank": case.rank, "base": case.base, **case.options}
    return chosen(case.x, weight, **given)[1].path == "applied"


def _measure(case: Case, seconds: float) -> float:
    """Return the time of forming over that of applying."""
    x, weight = _problem(case)
    leaves = list(_given(x, weight))
    pull = torch.randn_like(_formed(case, x, weight))
    ways = {"formed": _formed, "applied": _applied}
    steps = {name: _step(way, case, x, weight, leaves, pull) for name, way in ways.items()}
    times = interleave(steps, seconds, patience=0.1, clock=time.process_time)
    return min(times["formed"]) / min(times["applied"])


def _problem(case: Case) -> tuple[Tensor, LowRank]:
    lead = () if case.shared else case.x[:1]
    Cout, *rest = case.weight
    shapes = [case.x, (*lead, Cout, case.rank), (*lead, case.rank, *rest), *([case.weight] if case.base else [])]
    x, *parts = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return x, LowRank(*parts)


def _step(
    way: Callable[..., Tensor], case: Case, x: Tensor, weight: LowRank, leaves: list[Tensor], pull: Tensor
) -> Any:
    return lambda: torch.autograd.grad(way(case, x, weight), leaves, pull)


def _formed(case: Case, x: Tensor, weight: LowRank) -> Tensor:
    return case.op(x, weight.whole(), **case.options)


def _applied(case: Case, x: Tensor, weight: LowRank) -> Tensor:
    axes, options = (0, ()) if case.op is linear else (2, (1, case.options["padding"], 1, 1))
    planned = find_plan(axes, x, weight, None, (*options, None))
    return run(make_plan(axes, planned.geometry, "applied"), x, weight, None)


def _compare_memory() -> None:
    for base in (False, True):
        case = Case(conv2d, base=base, **HELD)
        formed, applied = (_held(way, case) / 1e6 for way in (_formed, _applied))
        print(
            f"{HELD}, {_name(base).strip()}: {formed:.1f} MB kept for the backward when formed, "
            f"{applied:.1f} MB when applied"
        )


def _held(way: Callable[..., Tensor], case: Case) -> int:
    """Return the bytes that a forward keeps for its backward, x and the factors left out."""
    x, weight = _problem(case)
    given, kept = {one.data_ptr() for one in _given(x, weight)}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        way(case, x, weight)
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    return sum(size for start, size in storages.items() if start not in given)


def _given(x: Tensor, weight: LowRank) -> Iterator[Tensor]:
    yield x
    yield from (part for part in weight if part is not None)


if __name__ == "__main__":
    main()
