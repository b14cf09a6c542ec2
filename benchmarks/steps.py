"""A whole search step of a dynamic supernet against NNI's own static supernet of the same space.

On one thread of a CPU, or on another device, in float32 without TF32.

A step is what a strategy does for a batch: draw, the architecture's step on a held-out batch (not for ``random``), and
forward, backward and the optimizer's step on a training batch. Prints a line per space, sampler and context, and writes
them to a JSON file::

    python benchmarks/steps.py                    # all of it, about ten minutes
    python benchmarks/steps.py --quick            # smaller, about two minutes
    python benchmarks/steps.py --spaces dense --samplers gdas
    python benchmarks/steps.py --device cuda      # on a GPU, into another file
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from accelerators import add_options, output_of, prepare
from supernets import SPACES, Problem, Step, nni_step, our_step
from timing import Times, interleave, machine, merge_results, ratio

SAMPLERS = ("random", "gdas", "darts", "enas")
CONTEXTS = ("shared", "per_sample")
SIZE = {"B": 32, "C": 16, "HW": 32}  # DARTS's own channels and image, half its batch
QUICK = {"B": 8, "C": 16, "HW": 16}
PATHS = 4  # drawn paths in a turn: all contenders run the same ones, and a ratio is that of the four together


def main() -> None:
    arguments = _parse()
    device, output = prepare(arguments.device, arguments.threads), output_of(arguments)
    size = QUICK if arguments.quick else dict(zip(SIZE, arguments.size, strict=True))
    rows: list[dict[str, Any]] = []
    for space, sampler, context in _plan(arguments):
        rows.append(_measure(space, sampler, context, size, arguments.seconds, device))
        print(_summary(rows[-1]), flush=True)
        merge_results(output, machines={"steps": machine(device)}, steps=rows)
    print(f"{len(rows)} rows in {output}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=SPACES)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--contexts", nargs="+", default=list(CONTEXTS), choices=CONTEXTS)
    parser.add_argument("--size", nargs=3, type=int, default=list(SIZE.values()), metavar=("B", "C", "HW"))
    parser.add_argument("--quick", action="store_true", help="a small batch of small images")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each row; slow steps take more")
    add_options(parser)
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    for space, sampler, context in itertools.product(arguments.spaces, arguments.samplers, arguments.contexts):
        if space != "convolutions" or sampler == "darts":  # only a mixture has what that space is there for
            yield space, sampler, context


def _measure(
    space: str, sampler: str, context: str, size: dict[str, int], seconds: float, device: torch.device
) -> dict[str, Any]:
    problem, per_sample = Problem(SPACES[space], **size, device=device), context == "per_sample"
    nni, name = nni_step(problem, sampler)
    steps = {"nni": nni, "ours": our_step(problem, sampler, per_sample)}
    if device.type == "cpu":  # elsewhere no compiled kernel serves
        steps["torch alone"] = our_step(problem, sampler, per_sample, kernels=False)
    steps["given"] = our_step(problem, sampler, per_sample, given=True)
    if space == "convolutions":
        steps["sum"] = our_step(problem, sampler, per_sample, fusion=False)
    repeats = 1 if sampler == "darts" else PATHS
    times = interleave(_repeated(steps, repeats), seconds, turn=0, patience=float("inf"), device=device)
    return {
        "space": space, "sampler": sampler, "context": context, **size, "layers": problem.layers, "nni": name,
        "over_nni_static": _over(times, "ours", "nni"),
        "spread": [round(one, 3) for one in ratio(times, "ours", "nni")[1:]],
        **({"torch_alone_over_nni_static": _over(times, "torch alone", "nni")} if "torch alone" in times else {}),
        "generation_share": round(1 - _over(times, "given", "ours"), 3),
        "milliseconds": {one: round(1e3 * median(times[one]) / repeats, 2) for one in times},
        **({"sum_of_outputs_over_fused": _over(times, "sum", "ours")} if "sum" in times else {}),
    }  # fmt: skip


def _repeated(steps: dict[str, Step], times: int) -> dict[str, Callable[[], Any]]:
    return {name: lambda step=step: [step() for _ in range(times)] for name, step in steps.items()}


def _over(times: Times, of: str, over: str) -> float:
    return round(ratio(times, of, over).median, 3)


def _summary(row: dict[str, Any]) -> str:
    more = ""
    if "torch_alone_over_nni_static" in row:
        more += f"; torch alone {row['torch_alone_over_nni_static']:5.2f}x"
    more += f"; generation {row['generation_share']:4.0%} of the step"
    if "sum_of_outputs_over_fused" in row:
        more += f"; the sum of outputs takes {row['sum_of_outputs_over_fused']:.2f}x as long"
    return (
        f"{row['space']:12} {row['sampler']:6} {row['context']:10} {row['over_nni_static']:5.2f}x of NNI's static "
        f"{row['nni']} ({row['milliseconds']['nni']:.0f} ms){more}"
    )


if __name__ == "__main__":
    main()
