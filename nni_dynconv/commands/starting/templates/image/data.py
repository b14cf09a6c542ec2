"""The data: scikit-learn's digits, turned by quarters. The context of an image tells how far it is turned."""

from __future__ import annotations

import torch
from nni.nas.evaluator.pytorch import DataLoader
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

PARTS = {"train": (2, 3, 4), "validation": (1,), "test": (0,)}
"""Which of each five digits: those of `validation` choose architecture and epoch, those of `test` nothing."""


class TurnedDigits(Dataset):
    """Items `((image, turn), digit)`: `(1, 8, 8)` from -1 to 1, `(4,)` one-hot, and a whole number.

    YOURS: an item is `((input, context), target)`; whatever the context is, the controller makes the weights from it.
    """

    def __init__(self, part: str):
        digits = load_digits()
        chosen = [index for index in range(len(digits.target)) if index % 5 in PARTS[part]]
        self.images = torch.tensor(digits.images[chosen]).float()[:, None] / 8 - 1
        self.digits = torch.tensor(digits.target[chosen])

    def __len__(self) -> int:
        return 4 * len(self.digits)

    def __getitem__(self, number: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        index, turn = divmod(number, 4)
        image = torch.rot90(self.images[index], turn, (1, 2))
        return (image, torch.eye(4)[turn]), self.digits[index]


def loaders(batch_size: int = 64) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Give the batches that train, those that choose, and those that measure in the end."""
    train = DataLoader(TurnedDigits("train"), batch_size, shuffle=True)
    validation, test = (DataLoader(TurnedDigits(part), batch_size) for part in ("validation", "test"))
    return train, validation, test
