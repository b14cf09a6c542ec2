"""PSNR over multiply-adds on unseen videos: a searched dynamic network against its rivals, at several budgets.

    python -m benchmarks.quality.denoising            all of it; what is finished is kept, so it may be stopped
    python -m benchmarks.quality.denoising --fast     a smoke run, into runs/

Every contender is trained from scratch for the same steps on the same batches, at the learning rate that is best for
it on validation shots. Search, learning rates and widths are decided without the test sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.quality.denoising_contenders import DYNAMIC, DYNAMICS, PAIRS, RIVALS, architectures, matched_width
from benchmarks.quality.denoising_report import summarise, table, write
from benchmarks.quality.denoising_search import search
from benchmarks.quality.denoising_training import (
    FAST,
    DenoisingLedger,
    Job,
    Settings,
    name_of,
    sample_of,
    structure,
    width_key,
)
from benchmarks.timing import keep_freed_memory, machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def work(ledger: DenoisingLedger) -> None:
    """Do all that is not done yet."""
    tune(ledger)
    draw_random(ledger)
    for width in ledger.settings.widths:
        compare(ledger, width)


def found_at(ledger: DenoisingLedger, width: int) -> str:
    """Return the architecture that is found at a width; search when that is not known yet."""
    known = ledger.known("searches", str(width))
    if known is None:
        known = ledger.note("searches", str(width), search(width, ledger))
        print(f"width {width}: {known['found']}", flush=True)
    return known["found"]


def tune(ledger: DenoisingLedger) -> None:
    """Find each contender's learning rate: the best on validation shots, over all seeds, at the middle budget."""
    settings, width = ledger.settings, middle(ledger.settings)
    name = found_at(ledger, width)
    for contender in (*DYNAMICS, *RIVALS):
        wide, own = width_of(ledger, contender, name, width), structure(contender, name)
        reached = {}
        for rate in settings.rates:
            jobs = [Job(contender, own, wide, rate, seed) for seed in settings.seeds]
            reached[rate] = fmean(ledger.psnr(job)["validation"] for job in jobs)
        ledger.note("learning_rates", contender, max(reached, key=reached.__getitem__))


def compare(ledger: DenoisingLedger, width: int) -> None:
    """Train every contender at one width with every seed: each dynamic network, and rivals as costly as it."""
    name = found_at(ledger, width)
    for dynamic, contender in PAIRS:
        wide, own = width_of(ledger, contender, name, width, dynamic), structure(contender, name)
        ledger.size(contender, own, wide)
        for seed in ledger.settings.seeds:
            ledger.psnr(Job(contender, own, wide, ledger.known("learning_rates", contender), seed))


def draw_random(ledger: DenoisingLedger) -> None:
    """Train architectures that were drawn, not searched, as the searched one was trained."""
    settings, width = ledger.settings, middle(ledger.settings)
    names = [name_of(sample) for sample in architectures()]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
    drawn = ledger.note("random", str(width), [names[index] for index in order[: settings.random]])
    for name in drawn:
        ledger.size(DYNAMIC, name, width)
        for seed in settings.seeds:
            ledger.psnr(Job(DYNAMIC, name, width, ledger.known("learning_rates", DYNAMIC), seed))


def width_of(ledger: DenoisingLedger, contender: str, name: str, width: int, dynamic: str = DYNAMIC) -> int:
    """Return the width of a contender at the budget of a dynamic network."""
    if contender in DYNAMICS:
        return width
    key = width_key(dynamic, contender, name, width)
    known = ledger.known("widths", key)
    return known or ledger.note("widths", key, matched_width(contender, sample_of(name), width, dynamic))


def middle(settings: Settings) -> int:
    """Return the width at which learning rates and random architectures are compared."""
    return settings.widths[len(settings.widths) // 2]


def main() -> None:
    """Work, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a smoke run: its numbers mean nothing")
    parser.add_argument("--output", type=Path, help="benchmarks/quality/denoising.json, or runs/ with --fast")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    fast = ROOT / "runs" / "denoising_fast"
    path = options.output or (fast / "denoising.json" if options.fast else HERE / "denoising.json")
    ledger = DenoisingLedger(path, FAST if options.fast else Settings())
    ledger.data.setdefault("machine", machine())
    work(ledger)
    summary = ledger.note("summary", "front", summarise(ledger.data))
    print(table(summary))
    docs = path.parent if options.fast else ROOT / "docs"
    write(summary, docs)


if __name__ == "__main__":
    main()
