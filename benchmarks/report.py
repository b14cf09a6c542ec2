"""Write ``docs/benchmarks.md`` from ``results.json``: what ``make bench`` measured, in a few tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = ("loop", "grouped", "vmap")
WORTH_A_ROOFLINE = 50.0  # microseconds of roofline from which the call itself no longer counts

Row = dict[str, Any]


def best_peers(rows: Sequence[Row]) -> list[float]:
    """Return, for each row, the time of the fastest other way over ours."""
    return [min(row["over"][peer] for peer in PEERS) for row in rows]


def rooflines(rows: Sequence[Row]) -> list[float]:
    """Return our time over the roofline's where that is long enough."""
    return [row["over"]["roofline"] for row in rows if row["roofline microseconds"] >= WORTH_A_ROOFLINE]


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    target = HERE.parent / "docs" / "benchmarks.md"
    target.write_text("\n".join(report(results)) + "\n")
    print(f"Wrote {target.relative_to(HERE.parent)}")


def report(results: dict[str, Any]) -> Iterator[str]:
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
        "ours, at each shape: geometric mean, and the worst shape. Shapes: B 8, 32, 128; C 8 to 64; H = W 8 to 56. "
        "`static` is one `F.conv2d` whose weights all samples share. The roofline is what sgemm and copies of the same "
        f"run allow; it is compared at shapes where it is {WORTH_A_ROOFLINE:.0f} µs or more."
    )
    yield ""
    yield from _table(
        ("op", "mode", "best peer / ours", "worst shape", "static / ours", "ours / roofline"), _ops(results["rows"])
    )
    yield ""
    yield "By torch's operators alone, where a compiled kernel serves above:"
    yield ""
    yield from _table(
        ("op", "mode", "best peer / ours", "worst shape", "static / ours", "ours / roofline"),
        _ops(results["rows_torch"]),
    )
    if "steps" in results:
        yield from _steps(results["steps"], results["machines"]["steps"])
    if "growth" in results:
        yield from _growth(results["growth"], results["machines"]["growth"])
    yield from _memory(json.loads((HERE / "memory.json").read_text()))


def _ops(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    for op, mode in dict.fromkeys((row["op"], row["mode"]) for row in rows):
        mine = [row for row in rows if (row["op"], row["mode"]) == (op, mode)]
        best, heavy = best_peers(mine), rooflines(mine)
        static = geometric_mean(row["over"]["static"] for row in mine)
        roofline = f"{geometric_mean(heavy):.1f}" if heavy else ""
        yield op, mode, f"{geometric_mean(best):.2f}", f"{min(best):.2f}", f"{static:.2f}", roofline


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
    names = ("space", "sampler", "nni", "context", "ours / NNI", "torch alone / NNI", "generation", "fused")
    yield from _table(names, (_step(row) for row in rows))


def _step(row: Row) -> Sequence[str]:
    fused = row.get("sum_of_outputs_over_fused")
    return (
        row["space"], row["sampler"], row["nni"], row["context"].replace("_", " "), f"{row['over_nni_static']:.2f}",
        f"{row['torch_alone_over_nni_static']:.2f}", f"{row['generation_share']:.0%}",
        "" if fused is None else f"{fused:.2f}",
    )  # fmt: skip


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
