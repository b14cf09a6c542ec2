"""What TensorBoard is shown of a trial's weights, and what NNI's page is told beside a metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from own_search import QUIET, mutator_of
from own_search import evaluator as made
from pytorch_lightning.loggers import TensorBoardLogger

from nni_dynconv.experiments.picturing import ShowWeights
from nni_dynconv.experiments.reporting import ReportMetric


class Board(TensorBoardLogger):
    """Keeps pictures, and needs no TensorBoard."""

    def __init__(self):
        self.pictures = []
        self.hparams = {}

    @property
    def experiment(self):
        return self

    def add_image(self, name, picture, step, dataformats):
        self.pictures.append((name, picture, step))

    def log_metrics(self, metrics, step=None):
        pass

    log_hyperparams = log_graph = finalize = save = lambda self, *args, **kwargs: None
    name, version, save_dir, log_dir = "board", 0, None, None


def validated(*callbacks, logger=False):
    """Validate a network with an evaluator's trainer."""
    from nni.nas.evaluator.pytorch import Trainer

    evaluator, mutator = made(), mutator_of()
    trainer = Trainer(accelerator="cpu", callbacks=list(callbacks), **{**QUIET, "logger": logger})
    sample = {"stem": "wide3", "mid": "static", "activation": "relu"}
    network = mutator.freeze(sample)
    evaluator.module.set_model(network)
    trainer.validate(evaluator.module, dataloaders=evaluator.val_dataloaders, verbose=False)
    return network, trainer


def test_the_weights_of_each_site_are_shown_once_a_validation():
    board = Board()
    network, _ = validated(ShowWeights(), logger=board)
    assert [name for name, _, _ in board.pictures] == ["weights/stem/wide3", "weights/head"]
    assert all(one.dtype == np.uint8 and one.shape[2] == 3 and one.std() > 0 for _, one, _ in board.pictures)
    assert "make_factored" not in vars(network.source)


def test_nothing_is_watched_without_tensorboard():
    callback = ShowWeights()
    validated(callback)
    assert callback._made == {} and callback._source is None


def test_a_validation_that_fails_leaves_the_network_as_it_was():
    callback, network = ShowWeights(), mutator_of().freeze({"stem": "wide3", "mid": "static", "activation": "relu"})
    callback._source = network.source
    callback._watch(network.source)
    callback.on_exception(None, None, RuntimeError())
    assert "make_factored" not in vars(network.source)


def test_nni_is_told_what_else_is_logged_by_its_name(monkeypatch):
    callback = ReportMetric("val_acc")
    metrics = {"val_acc": 0.5, "val_loss": 1.25, "prob/stem/wide3": 0.5, "entropy": float("nan"), "phase": 3.0}
    trainer = type("Trainer", (), {"callback_metrics": {name: torch.tensor(one) for name, one in metrics.items()}})()
    assert callback._others(trainer) == {"val_loss": pytest.approx(1.25)}
    assert callback.last(trainer) == 0.5
