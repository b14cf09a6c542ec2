"""The data, generated: three frames of a picture that a camera moves over, with noise. They are input and context."""

from __future__ import annotations

import torch
from nni.nas.evaluator.pytorch import DataLoader
from torch import Generator, Tensor
from torch.utils.data import TensorDataset, default_collate

CLIPS = {"train": 2048, "validation": 512, "test": 512}
FRAMES, SIZE, FASTEST = 3, 24, 2
DISCS = 60


def pictures(number: int, size: int, generator: Generator) -> Tensor:  # number size size, from -0.5 to 0.5
    """Draw discs that hide each other, as leaves on the ground do: pictures with edges, and flat in between."""
    made = torch.zeros(number, size, size)
    row, column = torch.arange(size)[:, None], torch.arange(size)
    for _ in range(DISCS):
        y, x, radius, grey = torch.rand(4, number, 1, 1, generator=generator)
        distance = ((row - size * y) ** 2 + (column - size * x) ** 2).sqrt()
        made = torch.where(distance < 2 + size / 4 * radius**3, grey, made)
    return made - 0.5


def clips(part: str) -> TensorDataset:
    """Give items `(noisy, clean)`: `(FRAMES, SIZE, SIZE)`, each with a motion and noise of its own, and its middle.

    YOURS: videos; those of validation and test are not to be of the films that train.
    """
    generator = torch.Generator().manual_seed(list(CLIPS).index(part))
    margin = FASTEST * (FRAMES // 2)
    whole = pictures(CLIPS[part], SIZE + 2 * margin, generator)
    moves = torch.randint(-FASTEST, FASTEST + 1, (CLIPS[part], 2), generator=generator)
    clean = torch.empty(CLIPS[part], FRAMES, SIZE, SIZE)
    for index, (picture, move) in enumerate(zip(whole, moves.tolist(), strict=True)):
        for frame in range(FRAMES):
            top, left = (margin + (frame - FRAMES // 2) * by for by in move)
            clean[index, frame] = picture[top : top + SIZE, left : left + SIZE]
    noise = 0.1 + 0.3 * torch.rand(CLIPS[part], 1, 1, 1, generator=generator)
    noisy = clean + noise * torch.randn(clean.shape, generator=generator)
    return TensorDataset(noisy, clean[:, FRAMES // 2, None])


def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Make a batch `((input, context), target)`, the form in which an evaluator hands on a context."""
    noisy, clean = default_collate(items)
    return (noisy, noisy), clean


def loaders(batch_size: int = 64) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Give the batches that train, those that choose, and those that measure in the end."""
    train = DataLoader(clips("train"), batch_size, shuffle=True, collate_fn=collate)
    validation, test = (DataLoader(clips(part), batch_size, collate_fn=collate) for part in ("validation", "test"))
    return train, validation, test
