"""One training and one measurement for every contender, and the file in which each finished run is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.quality.denoising_contenders import cost, make, parameters
from benchmarks.quality.ledger import Ledger
from examples.video_denoising.data import NoisyBatches, psnr
from examples.video_denoising.training import CLIP_NORM, mean_psnr, one_cycle, seeded

__all__ = [
    "FAST", "TEST_SETS", "DenoisingLedger", "Job", "Settings",
    "name_of", "run", "sample_of", "structure", "train", "width_key",
]  # fmt: skip

TEST_SETS = ("unseen_shots", "unseen_video")


@dataclass(frozen=True)
class Settings:
    """Sizes of the benchmark, the same for every contender.

    Parameters
    ----------
    widths
        Of the dynamic network: each is a budget.
    seeds
        Of the runs that are reported.
    steps, batch
        Of each training; patches have 32x32 pixels.
    rates
        Learning rates that are tried for each contender, on validation shots.
    samples
        Patches of 64x64 pixels in each measurement.
    random
        Architectures that are drawn for comparison with the searched one.
    search_steps
        Of the supernet.
    """

    widths: tuple[int, ...] = (2, 5, 10)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 1000
    batch: int = 12
    rates: tuple[float, ...] = (0.005, 0.01)
    samples: int = 256
    random: int = 10
    search_steps: int = 1000


FAST = Settings((2,), (0, 1), 12, 4, (0.01, 0.02), 16, 3, 12)


class Job(NamedTuple):
    """One training: what decides its result, beside the settings."""

    contender: str
    architecture: str  # as `name_of` gives it; empty for a U-Net
    width: int
    learning_rate: float
    seed: int

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        return "/".join(map(str, self))


def name_of(sample: Mapping[str, str]) -> str:
    """Write an architecture as one word.

    Examples
    --------
    >>> name_of({"filter": "conv9", "first": "conv5", "second": "skip"})
    'conv9-conv5-skip'
    """
    return "-".join(sample[label] for label in ("filter", "first", "second"))


def structure(contender: str, found: str) -> str:
    """Name the architecture of a contender: the found one, or, for a U-Net, none of the space."""
    return "" if contender.startswith("unet") else found


def sample_of(name: str) -> dict[str, str]:
    """Read what :func:`name_of` wrote; an empty name gives an empty sample."""
    return {} if not name else dict(zip(("filter", "first", "second"), name.split("-"), strict=True))


def width_key(dynamic: str, contender: str, name: str, width: int) -> str:
    """Name the place of a rival's width: as costly as a dynamic network of one width."""
    return f"{dynamic}/{contender}/{name}/{width}"


def train(net: nn.Module, steps: int, batch: int, seed: int, learning_rate: float) -> None:
    """Train for PSNR, the measure that is reported: each sample counts alike, however noisy it is."""
    batches = NoisyBatches("train", steps, batch, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, one_cycle(steps))
    net.train()
    for index in range(steps):
        (frames, context), clean = batches[index]
        step(net, -psnr(net(frames, context), clean).mean(), optimizer)
        schedule.step()
    net.eval()


def step(net: nn.Module, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one step down a loss."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
    optimizer.step()


def run(job: Job, settings: Settings) -> dict[str, Any]:
    """Train and measure one contender."""
    began, sample = time.process_time(), sample_of(job.architecture)
    net = seeded(lambda: make(job.contender, sample, job.width), job.seed)
    train(net, settings.steps, settings.batch, job.seed, job.learning_rate)
    measured = {split: round(mean_psnr(net, split, settings.samples), 4) for split in ("validation", *TEST_SETS)}
    return {"psnr": measured, "seconds": round(time.process_time() - began, 1)}


class DenoisingLedger(Ledger):
    """What is known of trainings and networks."""

    settings: Settings

    def psnr(self, job: Job) -> dict[str, float]:
        """Return what a training reaches on each set, in dB; train when that is not known yet."""
        found = self.known("runs", job.key)
        if found is None:
            found = self.note("runs", job.key, run(job, self.settings))
            print(f"{job.key:60} {found['psnr']['unseen_video']:6.2f} dB {found['seconds']:6.1f} s", flush=True)
        return found["psnr"]

    def size(self, contender: str, architecture: str, width: int) -> dict[str, int]:
        """Return multiply-adds a tile, those without what makes or conditions weights, and parameters."""
        key, sample = f"{contender}/{architecture}/{width}", sample_of(architecture)
        found = self.known("sizes", key)
        if found is None:
            whole = cost(contender, sample, width)
            plain = whole if contender.startswith("unet") else cost("static_twin", sample, width)
            sizes = {"multiply_adds": whole, "without_making": plain}
            found = self.note("sizes", key, {**sizes, "parameters": parameters(contender, sample, width)})
        return found
