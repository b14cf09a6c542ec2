"""Searches that are interrupted at a random place: a space, data and loops that draw wherever they can."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torchmetrics
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import (
    Checkpoint,
    DartsSampler,
    DynamicConv1d,
    DynamicLinear,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
)

SAMPLERS = [RandomSampler, FairSampler, EnasSampler, DartsSampler, GdasSampler]


class Killed(BaseException):
    """What a kill is in one process: nothing is cleaned up by hand."""


class Waves(Dataset):
    """Waves of two kinds under a context; the noise on them is drawn by every global generator as they are read."""

    def __init__(self, count=24, seed=0):
        draws = np.random.default_rng(seed)
        self.kinds = draws.integers(0, 2, count)
        self.contexts = draws.normal(size=(count, 3)).astype("float32")

    def __len__(self):
        return len(self.kinds)

    def __getitem__(self, place):
        kind = int(self.kinds[place])
        wave = torch.sin(torch.arange(12) * (1 + kind) * 0.7 + float(self.contexts[place, 0]))
        noise = torch.randn(12) * 0.1 + float(np.random.rand()) * 0.1 + random.random() * 0.1  # noqa: NPY002
        return ((wave + noise)[None], torch.from_numpy(self.contexts[place])), kind


class WaveSpace(ModelSpace):
    """Somebody's network of one axis, with dropout and BatchNorm, which remember."""

    def __init__(self):
        super().__init__()
        ops = {f"k{size}": DynamicConv1d(1, 4, size, padding=size // 2) for size in (1, 3, 5)}
        self.first = LayerChoice({**ops, "plain": nn.Conv1d(1, 4, 3, padding=1)}, label="first")
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.2)
        self.act = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, label="act")
        self.head = DynamicLinear(4, 2)

    def forward(self, x):
        return self.head(self.drop(self.act(self.norm(self.first(x)))).mean(-1))


def waves(seed=0, own=True, count=24):
    """A loader that shuffles by a generator of its own, or by the global one."""
    given = {"generator": torch.Generator().manual_seed(seed)} if own else {}
    return DataLoader(Waves(count, seed), batch_size=4, shuffle=True, **given)


def start(seed=0):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


class Loop:
    """A plain loop of a user's, made anew as in a new process."""

    def __init__(self, sampler, folder, minutes=10.0, kill_at=None):
        start()
        self.mutator = DynamicWeightMutator(WaveSpace(), sampler=sampler(seed=0), context=VectorContext(3, dim=4))
        weights = [*self.mutator.space.parameters()]
        self.optimizer = torch.optim.Adam(weights, lr=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 9)
        parts = {"mutator": self.mutator, "optimizer": self.optimizer, "schedule": self.schedule}
        self.learns = self.mutator.sampler.learns
        if self.learns == "gradient":
            parts["architecture"] = self.architecture = self.mutator.sampler.optimizer()
        self.said = []
        self.checkpoint = Checkpoint(folder, minutes=minutes, say=self.said.append, settings={"lr": 0.01}, **parts)
        self.kill_at, self.steps = kill_at, 0

    def run(self, epochs=3):
        self.checkpoint.load()
        train, held_out = waves(1), waves(2, own=False)
        for epoch in self.checkpoint.epochs(epochs):
            for batches in self.checkpoint.batches(train, held_out):
                self.mutator.sampler.anneal(epoch / epochs)
                self.step(*batches)
                self.steps += 1
                self.checkpoint.notes["steps"] = self.checkpoint.notes.get("steps", 0) + 1
                if self.steps == self.kill_at:
                    raise Killed
            self.schedule.step()
        return self

    def loss(self, batch):
        (x, c), y = batch
        return F.cross_entropy(self.mutator(x, context=c), y)

    def step(self, batch, held_out):
        if self.learns == "gradient":
            self.mutator.zero_grad()
            self.mutator.architecture_loss(lambda: self.loss(held_out)).backward()
            self.architecture.step()
        self.mutator.reset()
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        self.optimizer.step()
        if self.learns == "rewards":
            with torch.no_grad():
                self.mutator.sampler.observe(self.mutator.sample, -float(self.loss(held_out)))

    @property
    def state(self):
        drawn = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
        return self.mutator.state_dict(), self.optimizer.state_dict(), self.mutator.export(), drawn


def same(one, other):
    """Whether two states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


# Searches


class Counted:
    """Counts steps over a whole run, and kills it at one of them."""

    def __init__(self, kill_at=None):
        self.kill_at, self.steps = kill_at, 0

    def __deepcopy__(self, memo):
        return self  # evaluators are copied, and a run is one

    def step(self):
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed


class WaveModule(LightningModule):
    """An evaluator of a user's, with a schedule by step, sums over the epoch, and a metric of torchmetrics."""

    def __init__(self, counted):
        super().__init__()
        self.counted = counted
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)

    def training_step(self, batch, batch_idx):
        self.counted.step()
        x, y = batch
        scores = self.model(x)
        loss = F.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.log("train_acc", self.accuracy, on_epoch=True, on_step=False)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.model(x), y))

    def configure_optimizers(self):
        adam = torch.optim.Adam(self.parameters(), lr=0.02)
        falling = torch.optim.lr_scheduler.MultiStepLR(adam, [3, 7], 0.5)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=0)
        # one schedule goes by steps, the other by what is summed up over an epoch
        return [adam], [
            {"scheduler": falling, "interval": "step"},
            {"scheduler": plateau, "monitor": "train_loss_epoch"},
        ]


def wave_evaluator(counted, epochs=2, count=24, **options):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", **quiet, **options)
    loaders = {"train_dataloaders": waves(1, count=count), "val_dataloaders": DataLoader(Waves(16, 3), batch_size=4)}
    return Lightning(WaveModule(counted), trainer, **loaders)


class Searched:
    """A whole search in a folder, made anew as in a new process.

    Parameters
    ----------
    kill_at
        At which step, of all that it takes; ``None``: it ends.
    """

    def __init__(self, sampler, folder, kill_at=None, entrance="strategy", evaluator=wave_evaluator, **options):
        start()
        self.counted = Counted(kill_at)
        made = {"sampler": sampler(seed=0), "context": VectorContext(3, dim=4)}
        self.mutator = DynamicWeightMutator(WaveSpace(), **made)
        small = {"contenders": 3, "contender_batches": 1, "rerank": 2, "rerank_steps": 3, "final_epochs": 2}
        self.strategy = self.mutator.strategy(folder=folder, **{**small, **options})
        self.given, self.entrance = evaluator(self.counted), entrance

    def run(self):
        if self.entrance == "experiment":
            NasExperiment(self.mutator.space, self.given, self.strategy).run()
        else:
            self.strategy.mutate_evaluator(self.given).evaluate(self.mutator.space)
        return self

    @property
    def state(self):
        trained = self.strategy.trained
        rows = self.strategy.comparison.entries if self.strategy.comparison is not None else []
        return {
            "supernet": self.mutator.state_dict(),
            "architecture": trained.network.architecture,
            "network": trained.network.state_dict(),
            "metrics": dict(trained.metrics),
            "best": trained.best_epoch,
            "rows": [(one.kind, one.architecture, one.metrics, one.epochs) for one in rows],
            "drawn": (torch.rand(2), random.random(), np.random.rand()),  # noqa: NPY002
        }
