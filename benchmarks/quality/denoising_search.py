"""The search: a supernet with generated weights says where to begin, and trained architectures say where to go."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch

from benchmarks.quality.denoising_contenders import DYNAMIC, architectures, supernet
from benchmarks.quality.denoising_training import DenoisingLedger, Job, Settings, name_of, sample_of, step
from examples.video_denoising.data import Batch, NoisyBatches, evaluation_batch, psnr
from examples.video_denoising.training import one_cycle, seeded
from nni_dynconv import DynamicWeightMutator
from nni_dynconv.samplers import RandomSampler

__all__ = ["descend", "search"]

LEARNING_RATE = 0.01  # of the supernet
SEEDS = (100, 101)  # of no run that is reported


def search(width: int, ledger: DenoisingLedger) -> dict[str, Any]:
    """Search the space at a width; only training and validation shots are looked at.

    A supernet ranks its architectures by how well each of its candidates happens to be trained, so its favourite is
    only where a descent begins.

    Returns
    -------
    dict
        ``found``; ``start``; ``supernet``: PSNR of every architecture by generated weights; ``trained``: mean PSNR of
        those that the descent trained.
    """
    settings = ledger.settings
    mutator = seeded(lambda: supernet(width, RandomSampler(seed=SEEDS[0])), SEEDS[0])
    train_supernet(mutator, settings)
    scores = score(mutator, evaluation_batch("validation", settings.samples // 2))
    start = max(scores, key=scores.__getitem__)
    trained: dict[str, float] = {}

    def reached(name: str) -> float:
        if name not in trained:
            jobs = [Job(DYNAMIC, name, width, settings.rates[0], seed) for seed in SEEDS]
            trained[name] = fmean(ledger.psnr(job)["validation"] for job in jobs)
        return trained[name]

    return {"found": descend(start, reached), "start": start, "supernet": scores, "trained": trained}


def descend(start: str, reached: Callable[[str], float]) -> str:
    """Give each choice in turn the candidate with which the architecture reaches most, until no choice changes."""
    best, every = sample_of(start), [dict(one) for one in architectures()]
    while True:
        before = dict(best)
        for label in best:
            near = [one for one in every if all(one[other] == best[other] for other in best if other != label)]
            best = max(near, key=lambda sample: reached(name_of(sample)))
        if best == before:
            return name_of(best)


def train_supernet(mutator: DynamicWeightMutator, settings: Settings) -> None:
    """Train controller and weights, each step on one architecture, drawn uniformly."""
    batches = NoisyBatches("train", settings.search_steps, settings.batch, seed=SEEDS[0])
    optimizer = torch.optim.AdamW(mutator.space.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(settings.search_steps))
    mutator.train()
    for index in range(settings.search_steps):
        mutator.reset()
        (frames, context), clean = batches[index]
        step(mutator.space, -psnr(mutator(frames, context=context), clean).mean(), optimizer)
        schedule.step()
    mutator.eval()


@torch.no_grad()
def score(mutator: DynamicWeightMutator, batch: Batch) -> dict[str, float]:
    """Return the PSNR of every architecture on a batch, by generated weights."""
    scores = {}
    for sample in architectures():
        with mutator.using(sample):
            result = mutator(batch.noisy, context=batch.noisy)
        scores[name_of(sample)] = round(psnr(result, batch.clean).mean().item(), 4)
    return scores
