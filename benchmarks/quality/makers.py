"""Video denoising by one architecture whose weights different controllers make: what each reaches, and in which time.

    python -m benchmarks.quality.makers            into benchmarks/quality/makers.json; what is finished is kept

Task, steps, seeds and learning rates are those of ``benchmarks.quality.denoising``, the architecture is the one that is
found there at its middle width. The better learning rate is chosen on validation shots.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch

from benchmarks.quality.denoising_contenders import CODE, FILTERS
from benchmarks.quality.denoising_training import TEST_SETS, Job, Settings, sample_of, train
from benchmarks.quality.ledger import Ledger
from benchmarks.timing import keep_freed_memory, machine
from examples.video_denoising.data import FRAMES
from examples.video_denoising.networks import FrameStatistics
from examples.video_denoising.space import DenoisingSpace
from examples.video_denoising.training import mean_psnr, seeded
from nni_dynconv import ChunkedController, DynamicWeightMutator
from nni_dynconv.controllers import BasisController, Controller, ExpertsController
from nni_dynconv.samplers import RandomSampler

ARCHITECTURE, WIDTH = "conv5-conv5-conv3", 5


class Maker(NamedTuple):
    """What makes the deltas of a learned base, every value of them."""

    controller: Callable[[], Controller]


MAKERS = {
    "chunked": Maker(ChunkedController),
    "basis of 8": Maker(BasisController),
    "basis of 8, by rows": Maker(lambda: BasisController(shares="row")),
    "8 experts": Maker(lambda: ExpertsController(8, routing="linear")),
    "8 experts, by rows": Maker(lambda: ExpertsController(8, routing="linear", shares="row")),
}


def network_of(maker: Maker) -> Any:
    """Make the network, with random weights."""
    space, encoder = DenoisingSpace(channels=WIDTH), FrameStatistics(FRAMES, CODE, FILTERS)
    mutator = DynamicWeightMutator(
        space, sampler=RandomSampler(0), controller=maker.controller(), context=encoder, base="learned"
    )
    return mutator.freeze(sample_of(ARCHITECTURE))


def run(job: Job, settings: Settings) -> dict[str, Any]:
    """Train and measure one of them."""
    began = time.process_time()
    net = seeded(lambda: network_of(MAKERS[job.contender]), job.seed)
    train(net, settings.steps, settings.batch, job.seed, job.learning_rate)
    seconds = time.process_time() - began
    measured = {split: round(mean_psnr(net, split, settings.samples), 4) for split in ("validation", *TEST_SETS)}
    parameters = sum(one.numel() for one in net.parameters())
    return {"psnr": measured, "seconds": round(seconds, 1), "parameters": parameters}


def found(ledger: Ledger, job: Job) -> dict[str, Any]:
    """Return what the file knows of a run, or run it."""
    known: dict[str, Any] | None = ledger.known("runs", job.key)
    return known or ledger.note("runs", job.key, run(job, ledger.settings))


def row_of(ledger: Ledger, name: str) -> str:
    """Return a row of the table: at the better rate."""
    settings = ledger.settings
    runs = {
        rate: [found(ledger, Job(name, ARCHITECTURE, WIDTH, rate, seed)) for seed in settings.seeds]
        for rate in settings.rates
    }
    best = max(runs.values(), key=lambda some: fmean(one["psnr"]["validation"] for one in some))
    cells = [[one["psnr"][split] for one in best] for split in TEST_SETS]
    told = " | ".join(f"{fmean(cell):.2f} ± {stdev(cell):.2f}" for cell in cells)
    return f"| {name} | {best[0]['parameters']:,} | {fmean(one['seconds'] for one in best):.1f} | {told} |"


def main() -> None:
    """Run what is not known, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--makers", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    ledger = Ledger(options.output, Settings())
    ledger.data.setdefault("machine", machine())
    print("| weights by | parameters | s of CPU to train | unseen shots, dB | unseen video, dB |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.makers:
        print(row_of(ledger, name), flush=True)


if __name__ == "__main__":
    main()
