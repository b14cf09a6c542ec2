"""The data, generated: symbols that came through a channel. The context is what came of symbols that are known."""

from __future__ import annotations

import torch
from nni.nas.evaluator.pytorch import DataLoader
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset, default_collate

SIZES = {"train": 4096, "validation": 1024, "test": 1024}
LENGTH, PILOT, TAPS, NOISE = 64, 24, 5, 0.1


def received(channels: Tensor, symbols: Tensor, generator: Generator) -> Tensor:  # N 1 TAPS, N T -> N T
    """Send each row of symbols through a channel of its own, which smears and disturbs it."""
    smeared = F.conv1d(symbols[None], channels, padding=TAPS // 2, groups=len(channels))[0]
    return smeared + NOISE * torch.randn(smeared.shape, generator=generator)


def signals(part: str) -> TensorDataset:
    """Give items `(received, pilot, sent)`: `(1, LENGTH)`, `(PILOT, 2)` of what is known and what came, `(1, LENGTH)`.

    YOURS: recordings with what is known of each.
    """
    generator = torch.Generator().manual_seed(list(SIZES).index(part))
    channels = torch.randn(SIZES[part], 1, TAPS, generator=generator) * torch.tensor([0.5, 0.7, 1.0, 0.7, 0.5])
    channels = channels / channels.norm(dim=2, keepdim=True)
    sent = torch.randint(2, (SIZES[part], LENGTH), generator=generator).float()
    known = torch.randint(2, (1, PILOT), generator=torch.Generator().manual_seed(1)).float().expand(len(sent), -1)
    pilot = torch.stack([2 * known - 1, received(channels, 2 * known - 1, generator)], dim=2)
    return TensorDataset(received(channels, 2 * sent - 1, generator)[:, None], pilot, sent[:, None])


def collate(items: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Make a batch `((input, context), target)`, the form in which an evaluator hands on a context."""
    came, pilot, sent = default_collate(items)
    return (came, pilot), sent


def loaders(batch_size: int = 64) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Give the batches that train, those that choose, and those that measure in the end."""
    train = DataLoader(signals("train"), batch_size, shuffle=True, collate_fn=collate)
    validation, test = (DataLoader(signals(part), batch_size, collate_fn=collate) for part in ("validation", "test"))
    return train, validation, test
