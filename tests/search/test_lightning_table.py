"""The table of `docs/lightning.md` is true: each of its cells is tried by a search, or refused in the page's words."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from toy_task import ToyModule, ToySpace

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytorch_lightning as pl
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger, Logger

from nni_dynconv import DynamicWeightMutator, samplers
from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "lightning.md").read_text(encoding="utf-8")
SAMPLERS = {one: getattr(samplers, part.dotted.split(":")[1]) for one, part in TABLES["sampler"].items()}
SELECTING = ("random", "fair")
ROWS = {}
QUIET = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
BATCHES = 4


def row(name):
    """Name a search as a row of the page."""

    def take(run):
        ROWS[name] = run
        return run

    return take


def cells():
    lines = re.search(r"^\| what .*\n\|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE).group(1).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def column(sampler):
    """The place of a sampler's column among those after the first."""
    (head,) = re.findall(r"^\| what \|(.*)\|$", PAGE, re.MULTILINE)
    (found,) = [number for number, names in enumerate(head.split("|")) if f"`{sampler}`" in names]
    return found


def refusals():
    return dict(re.findall(r"^(\d)\. `` (.*?) ``", PAGE, re.MULTILINE))


# A search: the toy task, with the module, the trainer and the loaders that a row is about


@nni.trace
class Module(ToyModule):
    """The toy task without NNI's reports."""

    def on_validation_epoch_end(self):
        pass

    def on_fit_end(self):
        pass


def loader(batches=BATCHES, seed=0):
    x = torch.rand(4 * batches, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return DataLoader(list(zip(x, F.avg_pool2d(x, 3, 1, 1), strict=True)), batch_size=4)


class Search:
    """One search, and what came of it."""

    def __init__(self, sampler, module=Module, train=None, val=None, options=None, fit=None, space=ToySpace, **trainer):
        torch.manual_seed(0)
        self.mutator = DynamicWeightMutator(space(), sampler=SAMPLERS[sampler](seed=0), base="learned")
        self.start = copy.deepcopy(self.mutator.space.state_dict())
        self.trainer = Trainer(**{**QUIET, "accelerator": "cpu", "max_epochs": 2, **trainer})
        train, val = loader() if train is None else train, loader(seed=1) if val is None else val
        task = Lightning(module(), self.trainer, train_dataloaders=train, val_dataloaders=val, fit_kwargs=fit or {})
        settings = {"contenders": 16, "rerank": 2, "rerank_steps": 3, "log_every": 1, **(options or {})}
        self.task = self.mutator.strategy(**settings).mutate_evaluator(task)

    def run(self):
        self.task.evaluate(self.mutator.space)
        assert self.trainer.state.finished
        assert all(one.isfinite().all() for one in self.mutator.parameters())
        best = self.mutator.export()
        self.mutator.freeze(best)
        return self

    @property
    def state(self):
        return {name: one.clone() for name, one in self.mutator.space.state_dict().items()}

    def moved(self):
        return any(not torch.equal(one, self.start[name]) for name, one in self.mutator.space.state_dict().items())


def optimizer_of(search):
    return next(one for one in search.trainer.optimizers if not getattr(one, "is_arch_optimizer", False))


def with_schedule(make):
    class Scheduled(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
            return {"optimizer": optimizer, "lr_scheduler": make(optimizer)}

    return Scheduled


@row("`ReduceLROnPlateau` with a `monitor`, of validation or of training")
def plateau(sampler, tmp_path):
    for metric in ("val_loss", "train_loss"):

        def schedule(optimizer, metric=metric):
            never = {"mode": "min", "threshold": 1e9, "threshold_mode": "abs", "patience": 0, "factor": 0.1}
            return {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **never), "monitor": metric}

        search = Search(sampler, with_schedule(schedule), max_epochs=3).run()
        assert optimizer_of(search).param_groups[0]["lr"] == pytest.approx(1e-4)


@row("other schedules, by step or by epoch")
def schedules(sampler, tmp_path):
    for interval, times in (("step", 2 * BATCHES), ("epoch", 2)):

        def schedule(optimizer, interval=interval):
            return {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "interval": interval}

        search = Search(sampler, with_schedule(schedule)).run()
        assert optimizer_of(search).param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**times)


class Numbered(Module):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log(f"loss_of_{dataloader_idx}", F.mse_loss(self(x), y), add_dataloader_idx=False)


@row("several validation loaders, told apart by `dataloader_idx`")
def validations(sampler, tmp_path):
    search = Search(sampler, Numbered, val=[loader(seed=1), loader(2, seed=2)]).run()
    assert {"loss_of_0", "loss_of_1"} <= set(search.trainer.callback_metrics)
    named = Search(sampler, Numbered, val={"a": loader(seed=1), "b": loader(2, seed=2)}).run()
    assert {"loss_of_0", "loss_of_1"} <= set(named.trainer.callback_metrics)


class Joint(Numbered):
    """Its training step takes a batch of each loader."""

    def training_step(self, batch, batch_idx):
        batches = batch.values() if isinstance(batch, dict) else batch
        losses = [F.mse_loss(self(x), y) for x, y in batches]
        assert len(losses) == 2
        return sum(losses)


@row("several training loaders, with held-out ones in the same form")
def trainings(sampler, tmp_path):
    assert Search(sampler, Joint, train=[loader(), loader(2)], val=[loader(seed=1), loader(seed=2)]).run().moved()
    train, val = {"a": loader(), "b": loader(2)}, {"a": loader(seed=1), "b": loader(seed=2)}
    assert Search(sampler, Joint, train=train, val=val).run().moved()


@row("several training loaders, and one that is held out")
def unlike(sampler, tmp_path):
    Search(sampler, Joint, train=[loader(), loader()])


class Leaves(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx % 2 else None


class LeavesAll(Module):
    def training_step(self, batch, batch_idx):
        return None


@row("a `training_step` that returns `None`")
def nothing(sampler, tmp_path):
    assert Search(sampler, Leaves).run().moved()
    assert not Search(sampler, LeavesAll, options={"contenders": 0}).run().moved()


class Steps(Callback):
    """Counts the steps of the evaluator's optimizer in the search."""

    of_search = True

    def __init__(self):
        self.count, self.norms = 0, []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if not getattr(optimizer, "is_arch_optimizer", False):
            self.count += 1
            gradients = [one.grad for group in optimizer.param_groups for one in group["params"]]
            self.norms.append(float(torch.cat([one.flatten() for one in gradients if one is not None]).norm()))


@row("`Trainer(accumulate_grad_batches=...)`")
def accumulation(sampler, tmp_path):
    steps = Steps()
    search = Search(sampler, accumulate_grad_batches=3, callbacks=[steps], max_epochs=2).run()
    assert steps.count == 2 * 2, "the last batches of an epoch take a step of their own"
    assert search.trainer.accumulate_grad_batches == 3 and search.moved()


@row("`Trainer(gradient_clip_val=..., gradient_clip_algorithm=...)`")
def clipping(sampler, tmp_path):
    for algorithm in ("norm", "value"):
        steps = Steps()
        options = {"gradient_clip_val": 1e-4, "gradient_clip_algorithm": algorithm}
        search = Search(sampler, callbacks=[steps], **options).run()
        assert search.trainer.gradient_clip_val == 1e-4
        bound = (
            1e-4 if algorithm == "norm" else 1e-4 * math.sqrt(sum(one.numel() for one in search.mutator.parameters()))
        )
        assert steps.norms and max(steps.norms) <= bound * 1.01


@row("clipping in the trainer and in the strategy")
def both(sampler, tmp_path):
    Search(sampler, gradient_clip_val=1.0, options={"gradient_clip_val": 2.0})


@row("`EMAWeightAveraging`, `WeightAveraging`")
def averaging(sampler, tmp_path):
    callbacks = pytest.importorskip("pytorch_lightning.callbacks.weight_averaging")
    kept = Search(sampler, callbacks=[callbacks.EMAWeightAveraging(decay=1.0, update_starting_at_step=0)]).run()
    free = Search(sampler).run()
    assert free.moved() and not torch.equal(
        torch.cat([one.flatten() for one in kept.state.values()]),
        torch.cat([one.flatten() for one in free.state.values()]),
    )


class NormedSpace(ToySpace):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(super().forward(x))


@row("`StochasticWeightAveraging`")
def swa(sampler, tmp_path):
    for space in (ToySpace, NormedSpace):
        steps = Steps()
        average = StochasticWeightAveraging(1e-3, swa_epoch_start=1)
        search = Search(sampler, space=space, callbacks=[average, steps], max_epochs=3).run()
        assert search.moved() and steps.count == 3 * BATCHES, "an epoch that gathers statistics trains nothing"


@row("`EarlyStopping`")
def stopping(sampler, tmp_path):
    search = Search(sampler, callbacks=[EarlyStopping("val_loss", min_delta=1e9, patience=1)], max_epochs=9).run()
    assert search.trainer.current_epoch == 2


@row("`ModelCheckpoint`, and `ckpt_path` to go on from one")
def resuming(sampler, tmp_path):
    def search(folder, epochs, **more):
        saved = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        settings = {"enable_checkpointing": True, "callbacks": [saved], "max_epochs": epochs, "num_sanity_val_steps": 2}
        drawn = Drawn()
        settings["callbacks"].append(drawn)
        return Search(sampler, options={"contenders": 0}, **settings, **more).run(), drawn.seen

    whole, seen = search("whole", 3)
    again, later = search("again", 3, fit={"ckpt_path": str(tmp_path / "whole" / "epoch=1.ckpt")})
    assert seen[2 * BATCHES :] == later
    torch.testing.assert_close(again.state, whole.state, rtol=0, atol=0)
    assert again.mutator.export() == whole.mutator.export()


class Drawn(Callback):
    of_search = True

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        self.seen.append(dict(module.mutator.sample))


@row("`fast_dev_run`")
def fast(sampler, tmp_path):
    class Count(Module):
        steps = 0

        def training_step(self, batch, batch_idx):
            Count.steps += 1
            return super().training_step(batch, batch_idx)

    Search(sampler, Count, options={"contenders": 32, "rerank": 5, "rerank_steps": 100000}, fast_dev_run=1).run()
    assert Count.steps < 20


@row("`limit_train_batches`, `limit_val_batches`, in the end too")
def limits(sampler, tmp_path):
    seen = []

    class Watching(Module):
        def training_step(self, batch, batch_idx):
            seen.append(float(batch[0].sum()))
            return super().training_step(batch, batch_idx)

    options = {"contenders": 4, "contender_batches": 4, "rerank_steps": 8}
    Search(sampler, Watching, options=options, limit_train_batches=2, limit_val_batches=1).run()
    allowed = [float(x.sum()) for x, _ in loader()][:2], [float(x.sum()) for x, _ in loader(seed=1)]
    if sampler not in SELECTING:  # what learns on held-out batches goes through all of them
        assert set(seen) <= {*allowed[0], *allowed[1]}
    else:
        assert set(seen) == {*allowed[0], allowed[1][0]}


@row("`limit_val_batches=0`")
def no_validation(sampler, tmp_path):
    search = Search(sampler, limit_val_batches=0).run()
    assert "val_loss" not in search.trainer.callback_metrics


@row("`max_steps`, which counts the steps of the sampler's optimizer too")
def most_steps(sampler, tmp_path):
    search = Search(sampler, max_steps=4, max_epochs=-1).run()
    assert search.trainer.global_step == 4


@row("`max_time`, which is [the whole run's](runs.md#when-time-is-short)")
def most_time(sampler, tmp_path):
    search = Search(sampler, max_time={"milliseconds": 1}, max_epochs=-1, options={"final_epochs": 1}).run()
    assert search.trainer.global_step in (1, 2), "a batch, with a step of the sampler's or without"
    assert "batch 1 of 4 of epoch 1" in search.task.closing.trained.cut[0]


class Own(Logger):
    """Keeps the names that are logged."""

    name, version = "own", "0"

    def __init__(self):
        super().__init__()
        self.names = set()

    def log_metrics(self, metrics, step=None):
        self.names |= set(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


@row("loggers: `logger=True`, `CSVLogger`, a `Logger` of your own")
def loggers(sampler, tmp_path):
    own = Own()
    several = [CSVLogger(tmp_path / "csv", flush_logs_every_n_steps=1), own]
    for logger in (True, several):
        Search(sampler, logger=logger, log_every_n_steps=1, default_root_dir=tmp_path).run()
    (written,) = (tmp_path / "csv").rglob("metrics.csv")
    assert "prob/first/3" in written.read_text() and {"prob/first/3", "val_loss", "entropy"} <= own.names


def _of_precision(precision, dtype):
    def run(sampler, tmp_path):
        search = Search(sampler, precision=precision).run()
        assert {one.dtype for one in search.mutator.space.parameters()} == {dtype}
        assert search.mutator.sampler.settled is not None and search.moved()

    return run


row('`precision="64-true"`')(_of_precision("64-true", torch.float64))
row('`precision="bf16-true"`')(_of_precision("bf16-true", torch.bfloat16))
row('`precision="bf16-mixed"`')(_of_precision("bf16-mixed", torch.float32))


@row('`precision="16-mixed"` on a CPU')
def half_on_a_cpu(sampler, tmp_path):
    Search(sampler, precision="16-mixed")


@row("a data module")
def data_module(sampler, tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return loader(seed=1)

    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=SAMPLERS[sampler](seed=0))
    task = Lightning(Module(), Trainer(**QUIET, accelerator="cpu", max_epochs=1), datamodule=Data())
    mutator.strategy(contenders=4, rerank_steps=2).mutate_evaluator(task).evaluate(mutator.space)
    mutator.freeze(mutator.export())


@row("hooks of the module on batches, on steps and on checkpoints")
def hooks(sampler, tmp_path):
    calls = set()

    class Hooked(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            calls.add("after")
            x, y = batch
            return x + 1, y

        def training_step(self, batch, batch_idx):
            assert batch[0].min() >= 1, "augmentation of the batch was left out"
            return super().training_step(batch, batch_idx)

        def on_before_zero_grad(self, optimizer):
            calls.add("zero")

        def on_before_optimizer_step(self, optimizer):
            calls.add("step")

        def on_validation_batch_end(self, *_):
            calls.add("validation")

        def configure_callbacks(self):
            calls.add("callbacks")
            return []

    Search(sampler, Hooked).run()
    assert calls == {"after", "zero", "step", "validation", "callbacks"}


@row("a module that optimizes by hand (`automatic_optimization = False`)")
def by_hand(sampler, tmp_path):
    class Hand(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    Search(sampler, Hand)


@row("several optimizers")
def several_optimizers(sampler, tmp_path):
    class Two(Module):
        def configure_optimizers(self):
            return [torch.optim.Adam(self.parameters()), torch.optim.SGD(self.parameters(), lr=0.1)]

    Search(sampler, Two).run()


@row("`GradientAccumulationScheduler`")
def accumulation_schedule(sampler, tmp_path):
    Search(sampler, callbacks=[GradientAccumulationScheduler({0: 2})])


def test_the_table_has_a_row_for_each_that_is_tried():
    tried = [name for name, *_ in cells() if "GPU" not in name]
    assert tried == list(ROWS)
    (gpu,) = [values for name, *values in cells() if "GPU" in name]
    assert set(gpu) == {"untested"}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ROWS)
def test_a_cell_of_the_table_is_true(name, sampler, tmp_path):
    (values,) = [values for first, *values in cells() if first == name]
    cell = values[column(sampler)]
    if cell == "yes":
        ROWS[name](sampler, tmp_path)
        return
    words = refusals()[re.fullmatch(r"no \((\d)\)", cell).group(1)]
    with pytest.raises(ConfigError, match=re.escape(words)):
        ROWS[name](sampler, tmp_path)
