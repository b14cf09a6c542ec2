"""The estimate of ``mutator.cost`` against the measured training step, for whole networks: seconds, and peak memory.

The networks, contenders and steps are those of ``benchmarks/networks/measure.py``. The estimate is made first, before
any of the network has run in this process. ``over_measured`` is estimated over measured seconds,
``memory_over_measured`` the same of the peak of what a step allocates::

    python -m benchmarks.networks.estimates --output benchmarks/results.json    # about ten minutes
    python -m benchmarks.networks.estimates --networks small --contenders film
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path
from statistics import median
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch

from benchmarks.networks.measure import CONTENDERS, CONTEXT, SIZES, among, clock_of, mutator_of, peak, step_of
from benchmarks.networks.zoo import NETWORKS
from benchmarks.timing import keep_freed_memory, machine, merge_results, timed

ROUNDS = 3


def main() -> None:
    """Estimate and measure row by row, and keep each."""
    options = _parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    for network, batch, name in itertools.product(options.networks, options.batches, options.contenders):
        row = compare(network, batch, name)
        print(describe(row), flush=True)
        if options.output is not None:
            rows = among(options.output, "estimates", row)
            merge_results(options.output, machines={"estimates": machine()}, estimates=rows)


def compare(network: str, batch: int, name: str) -> dict[str, Any]:
    """Estimate one network with one kind of weights, then run it."""
    torch.manual_seed(0)
    size = SIZES.get(network, 32)
    x, context = torch.randn(batch, 3, size, size), torch.randn(batch, CONTEXT)
    y = torch.randint(10, (batch,))
    mutator, clock = mutator_of(network, CONTENDERS[name]), clock_of()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = clock()
        cost = mutator.cost(mutator.sample, x, context)
        spent = clock() - began
    step = step_of(mutator.space, lambda: mutator(x, context=context), y)
    step()
    taken = median(timed(step, 1, clock=clock) for _ in range(ROUNDS))
    mutator.space.zero_grad()
    held = peak(step)
    return {
        "network": network, "batch": batch, "contender": name, "threads": torch.get_num_threads(),
        "estimated": round(1e3 * cost.seconds, 1), "measured": round(1e3 * taken, 1),
        "over_measured": round(cost.seconds / taken, 3), "memory_over_measured": round(cost.memory / held, 3),
        "making_share": round(cost.making.seconds / cost.seconds, 3), "estimating": round(spent, 2),
        "of_it_measuring": round(cost.measuring, 2),
    }  # fmt: skip


def describe(row: dict[str, Any]) -> str:
    """Return a row as a line."""
    return (
        f"{row['network']:12} B {row['batch']:3} {row['contender']:20} estimated {row['estimated']:7.1f} ms, measured "
        f"{row['measured']:7.1f} ms: {row['over_measured']:.2f}x; memory {row['memory_over_measured']:.2f}x; "
        f"told in {row['estimating']:.1f} s"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--batches", nargs="+", type=int, default=[32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="such as benchmarks/results.json; else nothing is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
