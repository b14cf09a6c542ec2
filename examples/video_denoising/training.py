"""One training loop and one measurement for every network of the quickstart: all are trained and judged alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode

from .data import TILE, NoisyBatches, evaluation_batch, psnr

LEARNING_RATE = 5e-3
CLIP_NORM = 1.0


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a network whose first weights the seed decides; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def one_cycle(total: int, warm_up: float = 0.1) -> Callable[[int], float]:
    """Give the factor of the learning rate at each step: up in a line, down in a cosine, and zero after the end.

    Examples
    --------
    >>> [round(one_cycle(10)(step), 2) for step in (0, 1, 5, 10, 99)]
    [0.5, 1.0, 0.59, 0.0, 0.0]
    """

    def factor(step: int) -> float:
        rise = max(1, round(warm_up * total))
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise)))

    return factor


def train(net: nn.Module, steps: int, seed: int, learning_rate: float = LEARNING_RATE, batch_size: int = 64) -> None:
    """Train ``net(frames, context)`` on the training shots; the seed decides every batch."""
    batches = NoisyBatches("train", steps, batch_size, seed=seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, one_cycle(steps))
    net.train()
    for index in range(steps):
        (frames, context), clean = batches[index]
        optimizer.zero_grad()
        F.mse_loss(net(frames, context), clean).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        schedule.step()
    net.eval()


@torch.no_grad()
def mean_psnr(net: nn.Module | None, split: str, samples: int = 512) -> float:
    """Give the PSNR in dB, averaged over the fixed patches of a split; without a network, of the noisy frame."""
    batch = evaluation_batch(split, samples)
    middle = batch.noisy.shape[1] // 2
    if net is None:
        return psnr(batch.noisy[:, middle : middle + 1], batch.clean).mean().item()
    net.eval()
    result = torch.cat([net(part, part) for part in batch.noisy.split(64)])
    return psnr(result, batch.clean).mean().item()


def multiply_adds(net: nn.Module, frames: int, tile: int = TILE) -> int:
    """Count the multiply-adds of one tile, all that ``net(frames, context)`` runs: encoder and controller too.

    One tile forms its low-rank weights; a batch of them may apply the factors.
    """
    return _counted(net, torch.zeros(1, frames, tile, tile))


@torch.no_grad()
def _counted(net: nn.Module, frames: Tensor) -> int:
    training = net.training
    net.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            net(frames, frames)
    finally:
        net.train(training)
    return counter.get_total_flops() // 2
