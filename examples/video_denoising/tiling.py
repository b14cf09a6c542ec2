"""Run a network over whole videos, tile by tile: each tile is its own context and gets its own filters."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import FRAMES, TILE, normalise

OVERLAP = 16
SMALLEST = 16  # pixels that the context encoder wants to see, at least
TILES_AT_ONCE = 64


def starts(length: int, tile: int = TILE, overlap: int = OVERLAP) -> list[int]:
    """Give where tiles start along an axis, so that they cover it and overlap by at least ``overlap``.

    Examples
    --------
    >>> starts(64), starts(100), starts(10)
    ([0], [0, 36], [0])
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def neighbours(frames: Tensor, index: int, count: int = FRAMES) -> Tensor:
    """Give the frames around one, ``(count, H, W)``; beyond the ends time is mirrored, a single frame repeated."""
    last = len(frames) - 1
    steps = torch.arange(index - count // 2, index + count // 2 + 1).abs()
    return frames[torch.where(steps > last, (2 * last - steps).clamp(0, last), steps).clamp_max(last)]


def window(height: int, width: int, overlap: int = OVERLAP) -> Tensor:
    """Give the weight of each pixel of a tile in the blend: one inside, falling towards the edges; never zero."""

    def ramp(length: int) -> Tensor:
        steps = torch.arange(length)
        return ((torch.minimum(steps, length - 1 - steps) + 1) / (overlap + 1)).clamp_max(1.0)

    return ramp(height)[:, None] * ramp(width)


@torch.no_grad()
def denoise_frame(net: nn.Module, stack: Tensor) -> Tensor:
    """Clean the middle one of ``stack`` (frames, H, W), normalised; any size; ``(H, W)`` comes back."""
    height, width = stack.shape[1:]
    padding = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
    padded = F.pad(stack[None], padding, mode="replicate")[0]
    places = [(top, left) for top in starts(padded.shape[1]) for left in starts(padded.shape[2])]
    tiles = torch.stack([padded[:, top : top + TILE, left : left + TILE] for top, left in places])
    cleaned = torch.cat([net(part, part) for part in tiles.split(TILES_AT_ONCE)])[:, 0]  # tiles h w
    return _blend(cleaned, places, padded.shape[1:])[:height, :width]


def _blend(tiles: Tensor, places: list[tuple[int, int]], size: torch.Size) -> Tensor:
    weight = window(*tiles.shape[1:])
    total, weights = torch.zeros(size), torch.zeros(size)
    for tile, (top, left) in zip(tiles, places, strict=True):
        area = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        total[area] += tile * weight
        weights[area] += weight
    return total / weights


def denoise_video(net: nn.Module, noisy: Tensor) -> Tensor:
    """Clean every frame of ``noisy`` (T, H, W), normalised; ``(T, H, W)`` comes back."""
    net.eval()
    return torch.stack([denoise_frame(net, neighbours(noisy, index)) for index in range(len(noisy))])


def add_noise(frames: np.ndarray, sigma: float, seed: int = 0) -> Tensor:
    """Give normalised frames ``(T, H, W)`` with Gaussian noise of strength ``sigma``, of 255; the seed decides it."""
    generator = torch.Generator().manual_seed(seed)
    clean = normalise(torch.from_numpy(frames))
    return clean + torch.randn(clean.shape, generator=generator) * (sigma / 255)


def to_uint8(frames: Tensor) -> np.ndarray:
    """Turn normalised frames into grey levels 0 to 255."""
    return ((frames + 0.5) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
