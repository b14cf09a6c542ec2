"""Six sequences that are to be moved by one to four steps each: of 4,096 architectures one has every dilation right."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from toy_task import ToyModule

from nni_dynconv import DynamicConv1d

MOVES = (3, 1, 4, 2, 2, 4)
BEST = {f"move{place}": str(by) for place, by in enumerate(MOVES)}


class Moves(ModelSpace):
    """A branch for each sequence, which reaches the samples that are its dilation away."""

    def __init__(self, normed=False):
        super().__init__()
        for place in range(len(MOVES)):
            candidates = {
                str(by): DynamicConv1d(1, 1, 3, padding=by, dilation=by, padding_mode="circular") for by in range(1, 5)
            }
            setattr(self, f"move{place}", LayerChoice(candidates, label=f"move{place}"))
        self.norm = nn.BatchNorm1d(len(MOVES)) if normed else nn.Identity()

    def forward(self, x):
        branches = [getattr(self, f"move{place}")(x[:, place : place + 1]) for place in range(len(MOVES))]
        return self.norm(torch.cat(branches, dim=1))


def right(sample):
    """How many of the dilations are right."""
    return sum(sample[label] == by for label, by in BEST.items())


def evaluator(epochs=6, batches=16, batch=16, length=24, **options):
    x = torch.randn(batch * batches, len(MOVES), length, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, place].roll(by, -1) for place, by in enumerate(MOVES)], dim=1)
    data = DataLoader(list(zip(x, y, strict=True)), batch_size=batch)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(**quiet, max_epochs=epochs, accelerator="cpu", limit_val_batches=1, **options)
    return Lightning(ToyModule(), trainer, train_dataloaders=data, val_dataloaders=data)
