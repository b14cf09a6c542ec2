"""A search that is none of the examples': sequences whose frequency is the class, and a context that shifts it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import DynamicWeightMutator, GdasSampler, VectorContext
from nni_dynconv.ops import DynamicConv1d, DynamicLinear

QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)


class Waves(ModelSpace):
    """Three choices, one of which has no weights."""

    def __init__(self, width=6):
        super().__init__()
        stems = {f"wide{k}": DynamicConv1d(1, width, k, padding=k // 2) for k in (3, 7)}
        mids = {"static": nn.Conv1d(width, width, 3, padding=1), "nothing": nn.Identity()}
        self.stem, self.mid = LayerChoice(stems, label="stem"), LayerChoice(mids, label="mid")
        self.act = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, label="activation")
        self.head = DynamicLinear(width, 3)

    def forward(self, x):
        return self.head(self.mid(self.act(self.stem(x))).mean(-1))


class Sequences(torch.utils.data.Dataset):
    """Items ``((x, context), y)``."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.context, self.y = (
            torch.rand(count, 2, generator=generator),
            torch.randint(3, (count,), generator=generator),
        )
        often = 3 + 4 * self.y[:, None] + 3 * self.context[:, :1]
        noise = self.context[:, 1:] * torch.randn(count, 32, generator=generator)
        self.x = (torch.sin(6.283 * often * torch.arange(32) / 32) + noise)[:, None]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, at):
        return (self.x[at], self.context[at]), self.y[at]


@nni.trace
class Learn(LightningModule):
    """Cross-entropy, with the accuracy beside it."""

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        out = self(batch[0])
        self.log("val_loss", F.cross_entropy(out, batch[1]))
        self.log("val_acc", (out.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def evaluator(epochs=2, count=96):
    """Give the evaluator of NNI's."""
    train, held_out = (DataLoader(Sequences(count, seed), batch_size=16) for seed in (0, 1))
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", **QUIET)
    return Lightning(Learn(), trainer, train_dataloaders=train, val_dataloaders=held_out)


def mutator_of(**options):
    """Give a mutator whose weights are a learned base and a low-rank delta."""
    torch.manual_seed(0)
    recipe = {"base": "learned", "delta": "low_rank", "rank": 2, **options}
    return DynamicWeightMutator(Waves(), context=VectorContext(2, dim=8), sampler=GdasSampler(seed=0), **recipe)


def searched(folder, **options):
    """Search into a folder, and return the strategy."""
    mutator = mutator_of()
    given = {"baselines": {"random": 2}, "rerank": 3, "rerank_steps": 4, "diagnose_every": 2, "log_every": 2, **options}
    strategy = mutator.strategy(folder=folder, metric="val_acc", **given)
    strategy.mutate_evaluator(evaluator()).evaluate(mutator.space)
    return strategy
