"""Per-sample operators against a loop, groups = batch, vmap and a static layer, over a grid of shapes.

On one thread of a CPU, or on several, or on another device, in float32 without TF32.

Prints a line per operator and writes every shape to a JSON file::

    python benchmarks/ops.py                      # all of it, about half an hour
    python benchmarks/ops.py --quick              # a few shapes, about a minute
    python benchmarks/ops.py --ops depthwise      # the operators with this in their name
    python benchmarks/ops.py --device cuda        # on a GPU, into another file
    python benchmarks/ops.py --threads 2 --output threads.json

Where a compiled kernel serves, what torch's own operators reach is measured beside it (``rows_torch`` in the file).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch
from accelerators import add_options, output_of, prepare
from contenders import MORE, OPS, Convolve, Limits, measure_limits, ways
from report import PEERS, Row, best_peers, rooflines
from timing import CPU, Times, interleave, machine, merge_results, ratio
from torch import Tensor

from nni_dynconv.functional import library, without_kernels

GRID = {"B": (8, 32, 128), "C": (8, 16, 32, 64), "HW": (8, 16, 32, 56)}
FEWER = {"B": (8, 32), "C": (16, 64), "HW": (8, 32)}
QUICK = {"B": (8, 32), "C": (16,), "HW": (8, 32)}
ALL = OPS | MORE
MODES = ("fwd", "fwd+bwd")
SMALL = 1 << 20  # bytes of input up to which calls are timed together


def main() -> None:
    arguments = _parse()
    device, output = prepare(arguments.device, arguments.threads), output_of(arguments)
    torch.manual_seed(0)
    limits = measure_limits(device=device)
    about = machine(device) | _describe(limits, device)
    ops = [one for one in ALL if any(part in one for part in arguments.ops)]
    results = {name: [row for row in rows if row["op"] not in ops] for name, rows in _earlier(output).items()}
    for op in ops:
        plan, rest = _plan(op, arguments.quick), (limits, arguments.seconds, device)
        measured = [_measure(op, *shape, mode, *rest) for shape, mode in plan]
        for name, mine in zip(results, map(list, zip(*measured, strict=True)), strict=True):
            found = [row for row in mine if row is not None]
            for line in _summary(op if name == "rows" else f"{op}, torch alone", found):
                print(line, flush=True)
            results[name] = sorted([*results[name], *found], key=lambda row: list(ALL).index(row["op"]))
        merge_results(output, machine=about, **results)
    print(f"{len(results['rows'])} rows in {output}")


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
    add_options(parser)
    return parser.parse_args()


def _plan(op: str, quick: bool) -> Iterator[tuple[tuple[int, ...], str]]:
    grid = QUICK if quick else GRID if op in OPS else FEWER
    return itertools.product(itertools.product(*grid.values()), MODES)


def _describe(limits: Limits, device: torch.device) -> dict[str, Any]:
    copies = {f"copy {size >> 10} KiB, GB/s": round(speed / 1e9, 1) for size, speed in limits.copies.items()}
    used = library.LEVELS[library.level()] if library.loaded() and device.type == "cpu" else None
    return {"sgemm GFLOP/s": round(limits.flops / 1e9, 1), **copies, "kernels": used}


def _measure(
    op: str, B: int, C: int, HW: int, mode: str, limits: Limits, seconds: float, device: torch.device = CPU
) -> tuple[Row, Row | None]:
    """Measure one shape: ours, and ours by torch's operators alone where that is another path."""
    training = mode == "fwd+bwd"
    path = _path(op, B, C, HW, training, device)
    with without_kernels():
        path_torch = _path(op, B, C, HW, training, device)
    names = ["ours", *PEERS, "static", *(["torch alone"] if path_torch != path else [])]
    inputs = make_inputs(op, B, C, HW, training, device)
    contenders = {name: contender(op, C, training, name, inputs) for name in names}
    contenders |= {f"{name} again": contenders[name] for name in ("ours", "torch alone") if name in contenders}
    times = interleave(contenders, seconds, device=device)
    about = {"op": op, "B": B, "C": C, "HW": HW, "K": ALL[op][0].K, "mode": mode}
    roofline = limits.seconds(ALL[op], B, C, HW, training)
    calls = _calls(B, C, HW)
    row = about | {"path": path} | _compare(times, "ours", roofline, calls)
    if path_torch == path:
        return row, None
    return row, about | {"path": path_torch} | _compare(times, "torch alone", roofline, calls)


def _path(op: str, B: int, C: int, HW: int, training: bool, device: torch.device) -> str:
    return " + ".join(layer.path(B, C, HW, training, device) for layer in ALL[op])


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


class Inputs(NamedTuple):
    """What all contenders are given; where a tensor lies in memory alone makes some percent."""

    xs: list[Tensor]
    weights: list[list[Tensor]]  # of each layer, one set per sample
    shared: list[list[Tensor]]  # of each layer, one for all samples: of the static contender
    pulls: list[Tensor]  # gradients of the outputs


def make_inputs(op: str, B: int, C: int, HW: int, training: bool, device: torch.device = CPU) -> Inputs:
    layers, calls = ALL[op], range(_calls(B, C, HW))
    make: Callable[..., Tensor] = partial(torch.randn, device=device)
    xs = [make(layers[0].x_shape(B, C, HW), requires_grad=training) for _ in calls]
    weights, shared = (
        [[make((*lead, *layer.weight_shape(C)), requires_grad=training) for layer in layers] for _ in calls]
        for lead in ((B,), ())
    )
    return Inputs(xs, weights, shared, [make(layers[-1].y_shape(B, C, HW)) for _ in calls])


def contender(op: str, C: int, training: bool, name: str, inputs: Inputs) -> Callable[[], Any]:
    """Several calls on different inputs: forwards without gradients, or forwards and one backward over them all.

    A backward starts the autograd engine, which takes longer than a small convolution. A network starts it once for
    many layers, and so does this.
    """
    xs, kernels = inputs.xs, inputs.shared if name == "static" else inputs.weights
    steps = [(_way(name, layer.function), layer.options(C)) for layer in ALL[op]]

    def forward() -> list[Tensor]:
        ys = []
        for y, weights in zip(xs, kernels, strict=True):
            for (way, options), weight in zip(steps, weights, strict=True):
                y = way(y, weight, **options)
            ys.append(y)
        return ys

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), [*xs, *itertools.chain(*kernels)], inputs.pulls)

    run = both if training else torch.no_grad()(forward)
    return without_kernels()(run) if name == "torch alone" else run  # once: beside a small call it takes long


def _way(name: str, function: str) -> Convolve:
    return ways(function)["ours" if name == "torch alone" else name]


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
