"""Write ``docs/benchmarks.md``: what ``make bench`` measured, in a few tables, and ``make bench-gpu`` if it ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = ("loop", "grouped", "vmap")
OP_NAMES = ("op", "mode", "best peer / ours", "worst shape", "static / ours", "ours / roofline")
WORTH_A_ROOFLINE = 50.0  # microseconds of roofline from which the call itself no longer counts

Row = dict[str, Any]


def best_peers(rows: Sequence[Row]) -> list[float]:
    """Return, for each row, the time of the fastest other way over ours."""
    return [min(row["over"][peer] for peer in PEERS) for row in rows]


def rooflines(rows: Sequence[Row]) -> list[float]:
    """Return our time over the roofline's where that is long enough."""
    return [row["over"]["roofline"] for row in rows if row["roofline microseconds"] >= WORTH_A_ROOFLINE]


def main() -> None:
    results, gpu = json.loads((HERE / "results.json").read_text()), HERE / "results_gpu.json"
    target = HERE.parent / "docs" / "benchmarks.md"
    lines = report(results, json.loads(gpu.read_text()) if gpu.exists() else {})
    target.write_text("\n".join(lines) + "\n")
    print(f"Wrote {target.relative_to(HERE.parent)}")


def report(results: dict[str, Any], gpu: dict[str, Any]) -> Iterator[str]:
    """Write the results of the CPU, and those of a GPU as far as there are any, line by line."""
    machine = results["machine"]  # of the operators; the other sections say their own
    yield "# Benchmarks"
    yield ""
    yield "Made by `make bench`; every figure is a ratio of runs that took turns in one process, on one thread."
    yield f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['kernels']}, torch {machine['torch']}."
    yield ""
    yield "## Convolutions with one set of weights per sample"
    yield ""
    yield (
        "Time of the best of three others (a Python loop, one convolution with groups = batch, `torch.func.vmap`) over "
        f"ours, at each shape: geometric mean, and the worst shape. Shapes: {_shapes(results['rows'])}. `static` is "
        "torch's own operator, whose weights all samples share. The roofline is what sgemm and copies of the same "
        f"run allow; it is compared at shapes where it is {WORTH_A_ROOFLINE:.0f} µs or more."
    )
    yield ""
    yield from _table(OP_NAMES, _ops(results["rows"]))
    if "bound" in results:
        bound = results["bound"]
        yield ""
        yield (
            f"With kernels that copied x to y, and dy to dx, and computed nothing, {bound['op']} would stand at "
            f"{bound['copies']}: `python benchmarks/bound.py`, which found {bound['ours']} for ours in the same run."
        )
    yield ""
    yield "By torch's operators alone, where a compiled kernel serves above:"
    yield ""
    yield from _table(OP_NAMES, _ops(results["rows_torch"]))
    if "patches" in results:
        yield from _patches(results["patches"], results["machines"]["patches"])
    if "steps" in results:
        yield from _steps(results["steps"], results["machines"]["steps"])
    if "growth" in results:
        yield from _growth(results["growth"], results["machines"]["growth"])
    if "networks" in results:
        yield from _networks(results["networks"], results["machines"]["networks"])
    yield from _memory(json.loads((HERE / "memory.json").read_text()))
    if gpu:
        yield from _gpu(gpu)


def _shapes(rows: Sequence[Row]) -> str:
    """Write which shapes were measured; those of the first operator come first, and others name theirs."""
    axes: dict[str, tuple[list[int], ...]] = {}
    for op in dict.fromkeys(row["op"] for row in rows):
        axes[op] = tuple(sorted({row[axis] for row in rows if row["op"] == op}) for axis in ("B", "C", "HW"))
    groups = [[op for op in axes if axes[op] == sizes] for sizes in _distinct(list(axes.values()))]
    parts = []
    for ops in groups:
        B, C, HW = (", ".join(map(str, sizes)) for sizes in axes[ops[0]])
        named = "" if ops is groups[0] else f" for {', '.join(ops)}"
        parts.append(f"B {B}, C {C}, H = W {HW}{named}")
    other = {"conv1d": "L = H x W", "conv3d": "T H W = 4 x H/2 x W/2", "linear": "H x W rows a sample"}
    sizes = [f"{name}: {size}" for name, size in other.items() if any(op.split()[0] == name for op in axes)]
    return "; ".join(parts) + (f" ({', '.join(sizes)})" if sizes else "")


def _distinct(values: list[Any]) -> list[Any]:
    return [one for number, one in enumerate(values) if one not in values[:number]]


def _gpu(results: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## On a GPU"
    yield ""
    yield (
        "Made by `make bench-gpu`: the same, in float32; calls of a turn are queued, and the device is waited for "
        "before and after."
    )
    if "rows" in results:
        yield ""
        yield f"Operators, on {_card(results['machine'])}. Shapes: {_shapes(results['rows'])}."
        yield ""
        yield from _table(OP_NAMES, _ops(results["rows"]))
    if "steps" in results:
        yield ""
        yield f"Search steps, on {_card(results['machines']['steps'])}."
        yield ""
        yield from _step_table(results["steps"])


def _card(machine: dict[str, Any]) -> str:
    """Write what a device is, as ``timing.machine`` describes it."""
    texts = {"capability": "capability {}", "memory, GiB": "{} GiB", "cuda": "CUDA {}", "cudnn": "cuDNN {}"}
    of_cuda = [text.format(machine[key]) for key, text in texts.items() if key in machine]
    tf32 = {True: ["TF32 allowed"], False: ["no TF32"]}.get(machine.get("tf32"), [])
    return ", ".join([machine["card"], *of_cuda, *tf32, f"torch {machine['torch']}", f"with {machine['cpu']}"])


def _ops(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    for op, mode in dict.fromkeys((row["op"], row["mode"]) for row in rows):
        mine = [row for row in rows if (row["op"], row["mode"]) == (op, mode)]
        best, heavy = best_peers(mine), rooflines(mine)
        static = geometric_mean(row["over"]["static"] for row in mine)
        roofline = f"{geometric_mean(heavy):.1f}" if heavy else ""
        yield op, mode, f"{geometric_mean(best):.2f}", f"{min(best):.2f}", f"{static:.2f}", roofline


def _patches(rows: Sequence[Row], machine: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Weights that vary over the image"
    yield ""
    yield f"Machine: {machine['cpu']}, torch {machine['torch']}; CPU time, as other work shared the machine."
    yield ""
    yield (
        "A set of weights for each patch (`conv2d`; `cells`: patches along an axis), or for each pixel "
        "(`conv2d_pixels`; `cells`: groups of channels). `unfold / ours`: time of `unfold` and `einsum` over ours. The "
        f"roofline is compared where it is {WORTH_A_ROOFLINE:.0f} µs or more."
    )
    yield ""
    names = ("op", "mode", "B", "C", "H = W", "K", "cells", "unfold / ours", "ours / roofline")
    yield from _table(names, (_patch_cells(row) for row in rows))


def _patch_cells(row: Row) -> list[str]:
    heavy = row["roofline microseconds"] >= WORTH_A_ROOFLINE
    sizes = [str(row[key]) for key in ("op", "mode", "B", "C", "HW", "K", "cells")]
    return [*sizes, f"{row['unfold_over_ours']:.1f}", f"{row['over_roofline']:.1f}" if heavy else ""]


def _steps(rows: Sequence[Row], machine: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## A search step against NNI's static supernet of the same space"
    yield ""
    yield f"Machine: {machine['cpu']}, torch {machine['torch']}."
    yield ""
    yield (
        "Our time over NNI's (`nni`: which of its supernets). `torch alone`: without the compiled kernels. "
        "`generation`: the part of our step that making the weights takes (below zero: noise). `fused`: time of the "
        "sum of all candidates' outputs over that of one convolution with the mixed kernel."
    )
    yield ""
    yield from _step_table(rows)


def _step_table(rows: Sequence[Row]) -> Iterator[str]:
    columns: dict[str, Callable[[Row], str]] = {
        "space": lambda row: row["space"],
        "sampler": lambda row: row["sampler"],
        "nni": lambda row: row["nni"],
        "context": lambda row: row["context"].replace("_", " "),
        "ours / NNI": lambda row: f"{row['over_nni_static']:.2f}",
        "torch alone / NNI": lambda row: f"{row['torch_alone_over_nni_static']:.2f}",
        "generation": lambda row: f"{row['generation_share']:.0%}",
        "fused": lambda row: f"{row['sum_of_outputs_over_fused']:.2f}" if "sum_of_outputs_over_fused" in row else "",
    }
    if not all("torch_alone_over_nni_static" in row for row in rows):  # where no compiled kernel serves
        del columns["torch alone / NNI"]
    yield from _table(tuple(columns), ([write(row) for write in columns.values()] for row in rows))


def _networks(rows: Sequence[Row], machine: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Whole networks"
    yield ""
    yield (
        "A training step (forward, backward, SGD) with weights of each sample's own, on images of 32x32: its time and "
        "its peak memory over those of the static network, the share of its time that making weights takes, and the "
        "time of what is written by hand for the same delta over ours (FiLM; CondConv with 4 kernels; products of rank "
        "4, the faster of two ways; hypnettorch, in a loop over the samples). Of ProxylessNAS (64x64) and DARTS' cells "
        "static is NNI's path-sampling supernet. In brackets the quarters of the rounds below and above. `python -m "
        f"benchmarks.networks.measure`. Machine: {machine['cpu']}, torch {machine['torch']}, one thread."
    )
    yield ""
    names = (
        "network",
        "B",
        "weights",
        "time over static",
        "memory over static",
        "making",
        "by hand over ours",
        "hypnettorch over ours",
    )
    yield from _table(
        names,
        (
            (
                row["network"],
                str(row["batch"]),
                row["contender"],
                f"{row['over_static']:.2f} ({row['spread'][0]:.2f} to {row['spread'][1]:.2f})",
                f"{row['memory_over_static']:.2f}",
                f"{row['making_share']:.0%}",
                *("" if row.get(one) is None else f"{row[one]:.2f}" for one in ("over_hand", "over_hypnettorch")),
            )
            for row in rows
        ),
    )


def _growth(rows: Sequence[Row], machine: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## How a search step grows"
    yield ""
    yield f"Time of a step over that of the first column's. Machine: {machine['cpu']}, torch {machine['torch']}."
    yield ""
    names = ("with", "sampler", "context", "steps")
    yield from _table(
        names,
        (
            (row["with"], row["sampler"], row["context"].replace("_", " "), _series(row["over_first"]))
            for row in rows
        ),
    )  # fmt: skip


def _memory(results: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Memory"
    yield ""
    batch, unit = results["settings"]["batch"], results["unit"]
    yield f"Peak of a training step of {batch} samples that share D contexts, in {unit}:"
    yield ""
    names = ("D", "with `index=`: D sets of weights", "one context a sample", "the D sets themselves")
    keys = ("by_index", "one_a_sample", "weights")
    yield from _table(names, ((str(row["contexts"]), *(f"{row[key]:.1f}" for key in keys)) for row in results["peaks"]))
    yield ""
    yield "![Peak memory against the number of distinct contexts](img/memory.png)"


def _series(ratios: dict[str, float]) -> str:
    return ", ".join(f"{value}: {over:.2f}" for value, over in ratios.items())


def _table(names: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "| " + " | ".join("---" for _ in names) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    main()
