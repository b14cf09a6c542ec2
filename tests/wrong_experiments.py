"""Experiments that are wrong in one thing each, and a right one: what `nni-dynconv check --try` is tried on."""

from __future__ import annotations

import atexit
import sys

import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv.ops import DynamicConv2d, DynamicLinear

SAMPLES, CLASSES = 24, 3


class Space(ModelSpace):
    """Right: two dynamic candidates, a skip, a dynamic head."""

    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        candidates = {f"conv{k}": DynamicConv2d(width, width, k, padding=k // 2) for k in (1, 3)}
        self.body = LayerChoice({**candidates, "skip": nn.Identity()}, label="body")
        self.head = DynamicLinear(width, CLASSES)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).relu().mean((2, 3)))


class StaticSpace(Space):
    """Without a dynamic op."""

    def __init__(self):
        super().__init__()
        self.body = LayerChoice([nn.Conv2d(4, 4, 1), nn.Identity()], label="body")
        self.head = nn.Linear(4, CLASSES)


class MisfitSpace(Space):
    """One candidate forgets its padding, and what comes after adds its output to another's."""

    def __init__(self):
        super().__init__()
        self.body = LayerChoice({"conv1": DynamicConv2d(4, 4, 1), "conv3": DynamicConv2d(4, 4, 3)}, label="body")

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


class TwoPlacesSpace(Space):
    """One label at two places, with other candidates at each."""

    def __init__(self):
        super().__init__()
        more = {f"conv{k}": DynamicConv2d(4, 4, k, padding=k // 2) for k in (3, 5)}
        self.more = LayerChoice({**more, "skip": nn.Identity()}, label="body")

    def forward(self, x):
        return self.head(self.more(self.body(self.stem(x))).mean((2, 3)))


def _odd():
    class OddSpace(Space):
        """Its forward asks for values, so that no graph of it can be written, and its class has no place of its own."""

        def forward(self, x):
            x = self.stem(x)
            while float(x.detach().abs().max()) > 1000:
                x = x / 2
            return self.head(self.body(x).mean((2, 3)))

    return OddSpace


OddSpace = _odd()


class FlippedSpace(Space):
    """Its ops see the samples in another order."""

    def forward(self, x):
        return super().forward(x.flip(0)).flip(0)


class Classifier(LightningModule):
    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Raising(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        weights = {0: 1.0}
        return F.cross_entropy(self(x), y) * weights[int(y.max()) + 10]


class Noisy(Classifier):
    """Says a lot as its process ends."""

    def __init__(self):
        super().__init__()
        atexit.register(lambda: [print(f"noise {number}", file=sys.stderr) for number in range(100)])


def _data(form, context):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(SAMPLES, 1, 6, 6, generator=generator), torch.randint(CLASSES, (SAMPLES,), generator=generator)
    c = torch.randn(SAMPLES, context, generator=generator)
    if form == "triple":
        return list(zip(x, c, y, strict=True))
    if form == "plain":
        return list(zip(x, y, strict=True))
    return list(zip(zip(x, c, strict=True), y, strict=True))


def evaluator(form="paired", context=5, module="Classifier", validation=True, accelerator="cpu", **trainer):
    data = _data(form, context)
    settings = {"max_epochs": 3, "enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    return Lightning(
        globals()[module](),
        Trainer(**settings, enable_model_summary=False, accelerator=accelerator, devices=1, **trainer),
        train_dataloaders=DataLoader(data, batch_size=8),
        val_dataloaders=DataLoader(data, batch_size=8) if validation else None,
    )
