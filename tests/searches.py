"""Whole searches of seconds, whose end tests look at."""

from __future__ import annotations

import torch
from toy_task import ToyModule, ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.experiment import NasExperiment

from nni_dynconv import DynamicWeightMutator, GdasSampler

QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


def made(sampler=GdasSampler, space=ToySpace):
    torch.manual_seed(0)
    return DynamicWeightMutator(space(), sampler=sampler(seed=0))


class Quiet(ToyModule):
    """Reports nothing to NNI."""

    def on_validation_epoch_end(self):
        pass

    def on_fit_end(self):
        pass


def task(module=None, epochs=2, callbacks=(), **options):
    loaders = evaluator(batches=4)
    data = {"train_dataloaders": loaders.train_dataloaders, "val_dataloaders": loaders.val_dataloaders}
    given = {"max_epochs": epochs, "accelerator": "cpu", "enable_checkpointing": False, **QUIET, **options}
    return Lightning(module or Quiet(), Trainer(callbacks=list(callbacks), **given), **data)


def run(mutator, given=None, **options):
    strategy = mutator.strategy(**{"contenders": 8, "rerank": 2, "rerank_steps": 20, **options})
    NasExperiment(mutator.space, given or task(epochs=1), strategy).run()
    return strategy
