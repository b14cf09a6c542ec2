"""Per-sample convolution against a loop, groups = batch, vmap and a static layer, over a grid of shapes, on one thread.

Prints a line per operator and writes every shape to a JSON file::

    python benchmarks/ops.py                      # all of it, about half an hour
    python benchmarks/ops.py --quick              # a few shapes, about a minute
    python benchmarks/ops.py --ops depthwise      # the operators with this in their name

Where a compiled kernel serves, what torch's own operators reach is measured beside it (``rows_torch`` in the file).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from contenders import OPS, WAYS, Convolve, Limits, measure_limits
from report import PEERS, Row, best_peers, rooflines
from timing import Times, interleave, keep_freed_memory, machine, merge_results, ratio
from torch import Tensor

from nni_dynconv.functional import conv2d, kernels, without_kernels

GRID = {"B": (8, 32, 128), "C": (8, 16, 32, 64), "HW": (8, 16, 32, 56)}
QUICK = {"B": (8, 32), "C": (16,), "HW": (8, 32)}
MODES = ("fwd", "fwd+bwd")
SMALL = 1 << 20  # bytes of input up to which calls are timed together


def main() -> None:
    arguments = _parse()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    limits = measure_limits()
    about = machine() | _describe(limits)
    ops = [one for one in OPS if any(part in one for part in arguments.ops)]
    results = {name: [row for row in rows if row["op"] not in ops] for name, rows in _earlier(arguments.output).items()}
    for op in ops:
        measured = [_measure(op, *shape, mode, limits, arguments.seconds) for shape, mode in _plan(arguments)]
        for name, mine in zip(results, map(list, zip(*measured, strict=True)), strict=True):
            found = [row for row in mine if row is not None]
            for line in _summary(op if name == "rows" else f"{op}, torch alone", found):
                print(line, flush=True)
            results[name] += found
        merge_results(arguments.output, machine=about, **results)
    print(f"{len(results['rows'])} rows in {arguments.output}")


def _earlier(path: str) -> dict[str, list[Row]]:
    """Return the rows of a file of results: those of operators that are not measured now stay in it."""
    results = json.loads(Path(path).read_text()) if Path(path).exists() else {}
    return {name: results.get(name, []) for name in ("rows", "rows_torch")}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--ops", nargs="+", default=[""], help="only operators with one of these in their name")
    parser.add_argument("--quick", action="store_true", help="four shapes only")
    parser.add_argument(
        "--seconds", type=float, default=0.35, help="time for each shape and mode; large ones take more"
    )
    parser.add_argument("--output", default="benchmarks/results.json")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Iterator[tuple[tuple[int, ...], str]]:
    grid = QUICK if arguments.quick else GRID
    return itertools.product(itertools.product(*grid.values()), MODES)


def _describe(limits: Limits) -> dict[str, Any]:
    copies = {f"copy {size >> 10} KiB, GB/s": round(speed / 1e9, 1) for size, speed in limits.copies.items()}
    used = kernels.LEVELS[kernels.level()] if kernels.loaded() else None
    return {"sgemm GFLOP/s": round(limits.flops / 1e9, 1), **copies, "kernels": used}


def _torch_alone(*arguments: Any, **options: Any) -> Tensor:
    with without_kernels():
        return conv2d(*arguments, **options)


def _measure(op: str, B: int, C: int, HW: int, mode: str, limits: Limits, seconds: float) -> tuple[Row, Row | None]:
    """Measure one shape: ours, and ours by torch's operators alone where that is another path."""
    training = mode == "fwd+bwd"
    path = _path(op, B, C, HW, training)
    with without_kernels():
        path_torch = _path(op, B, C, HW, training)
    ways = WAYS | ({"torch alone": _torch_alone} if path_torch != path else {})
    contenders = {name: _contender(op, B, C, HW, training, way, name == "static") for name, way in ways.items()}
    contenders |= {f"{name} again": contenders[name] for name in ("ours", "torch alone") if name in contenders}
    times = interleave(contenders, seconds)
    about = {"op": op, "B": B, "C": C, "HW": HW, "K": OPS[op][0].K, "mode": mode}
    roofline = limits.seconds(OPS[op], B, C, HW, training)
    calls = _calls(B, C, HW)
    row = about | {"path": path} | _compare(times, "ours", roofline, calls)
    if path_torch == path:
        return row, None
    return row, about | {"path": path_torch} | _compare(times, "torch alone", roofline, calls)


def _path(op: str, B: int, C: int, HW: int, training: bool) -> str:
    return " + ".join(layer.path(B, C, HW, training) for layer in OPS[op])


def _compare(times: Times, ours: str, roofline: float, calls: int) -> Row:
    over = {name: ratio(times, name, ours).median for name in (*PEERS, "static")}
    seconds = sorted(times[ours])[len(times[ours]) // 2] / calls
    over["roofline"] = seconds / roofline
    spread = ratio(times, f"{ours} again", ours)
    return {
        "over": {name: round(value, 3) for name, value in over.items()},
        "self": [round(one, 3) for one in spread],
        "microseconds": round(seconds * 1e6, 1), "roofline microseconds": round(roofline * 1e6, 1),
    }  # fmt: skip


def _contender(op: str, B: int, C: int, HW: int, training: bool, way: Convolve, shared: bool) -> Callable[[], Any]:
    """Several calls on different inputs: forwards without gradients, or forwards and one backward over them all.

    A backward starts the autograd engine, which takes longer than a small convolution. A network starts it once for
    many layers, and so does this.
    """
    layers, lead = OPS[op], () if shared else (B,)
    calls = _calls(B, C, HW)
    xs = [torch.randn(B, C, HW, HW, requires_grad=training) for _ in range(calls)]
    kernels = [[torch.randn(*lead, *layer.weight_shape(C), requires_grad=training) for layer in layers] for _ in xs]
    pulls = [torch.randn(B, C, HW, HW) for _ in xs]

    def forward() -> list[Tensor]:
        ys = []
        for y, weights in zip(xs, kernels, strict=True):
            for layer, weight in zip(layers, weights, strict=True):
                y = way(y, weight, **layer.options(C))
            ys.append(y)
        return ys

    if training:
        return lambda: torch.autograd.grad(forward(), [*xs, *itertools.chain(*kernels)], pulls)
    return torch.no_grad()(forward)


def _calls(B: int, C: int, HW: int) -> int:
    """How many calls are timed together: a few where one is small."""
    return max(1, min(8, SMALL // (4 * B * C * HW * HW)))


def _summary(op: str, rows: list[Row]) -> Iterator[str]:
    for mode in MODES:
        mine = [row for row in rows if row["mode"] == mode]
        if not mine:
            continue
        best, heavy = best_peers(mine), rooflines(mine)
        below = [one for one, row in zip(best, mine, strict=True) if one < 0.9 and one < 0.9 * row["self"][1]]
        columns = [f"{name} {geometric_mean([row['over'][name] for row in mine]):5.2f}x" for name in (*PEERS, "static")]
        roof = f"{geometric_mean(heavy):.2f} (most {max(heavy):.2f})" if heavy else "-"
        least = f"least {min(best):.2f}; {len(below)} below 0.9"
        peers = f"best peer {geometric_mean(best):5.2f}x ({least}), {', '.join(columns)}"
        yield f"{op:34} {mode:7} {peers}; over roofline {roof}"


if __name__ == "__main__":
    main()
