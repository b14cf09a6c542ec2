"""What Lightning has logged of an epoch so far, as plain data and back: it leaves that out of its own checkpoints."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torchmetrics import Metric

__all__ = ["logged_in", "set_logged"]

TABLES = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
PLAIN = (
    "fx",
    "name",
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "dataloader_idx",
    "metric_attribute",
)
SUMS = ("value", "cumulated_batch_size", "has_reset", "_update_count", "_forward_cache")


def logged_in(trainer: Trainer) -> dict[str, Any]:
    """Return what was logged last, what is summed up over the epoch at hand, and where the module's metrics are."""
    connector, results = trainer._logger_connector, trainer.fit_loop.epoch_loop._results
    return {
        "tables": {name: dict(getattr(connector, name)) for name in TABLES},
        "first": connector._first_loop_iter,
        "results": {key: _described(one) for key, one in results.items()},
        "metrics": {name: _state(one) for name, one in _metrics(trainer.lightning_module)},
    }


def set_logged(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Let a trainer go on with what :func:`logged_in` gave."""
    connector, results = trainer._logger_connector, trainer.fit_loop.epoch_loop._results
    for name, table in state["tables"].items():
        setattr(connector, name, dict(table))
    connector._first_loop_iter = state["first"]
    for name, one in _metrics(trainer.lightning_module):
        for key, value in state["metrics"][name].items():
            setattr(one, key, value)
    for key, described in state["results"].items():
        results[key] = _made(trainer, described)


def _described(one: _ResultMetric) -> dict[str, Any]:
    meta, sync = one.meta, one.meta.sync
    found = {name: getattr(one, name) for name in SUMS if one.is_tensor and hasattr(one, name)}
    return {
        "is_tensor": one.is_tensor,
        "meta": {name: getattr(meta, name) for name in PLAIN},
        "reduce": [meta.reduce_fx is getattr(builtins, meta.reduce_fx.__name__, None), meta.reduce_fx.__name__],
        "sync": {"_should": sync.should, "_op": sync.op, "rank_zero_only": sync.rank_zero_only},
        "sums": found,
    }


def _made(trainer: Trainer, described: Mapping[str, Any]) -> _ResultMetric:
    plain, name = described["reduce"]
    meta = _Metadata(**described["meta"], reduce_fx=getattr(builtins if plain else torch, name))
    meta.sync = _Sync(fn=trainer.strategy.reduce, **described["sync"])
    made = _ResultMetric(meta, described["is_tensor"])
    for key, value in described["sums"].items():
        setattr(made, key, value)
    if not described["is_tensor"]:
        made.value = trainer.lightning_module.get_submodule(described["meta"]["metric_attribute"])
    return made


def _metrics(module: LightningModule) -> Iterator[tuple[str, Metric]]:
    return ((name, one) for name, one in module.named_modules() if isinstance(one, Metric))


def _state(one: Metric) -> dict[str, Any]:
    return {**{name: getattr(one, name) for name in one._defaults}, "_update_count": one._update_count}
