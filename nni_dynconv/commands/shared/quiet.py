"""What a command prints is its own: Lightning and NNI, which talk at each of many trainings, are silent."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["hushed", "quiet"]

LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "nni")
WARNING = r"(pytorch_lightning|lightning|lightning_fabric|nni|torch)\b"
"""Modules whose warnings are about how a trainer is used, which is not what was asked for."""


@contextmanager
def quiet() -> Iterator[None]:
    """For a block, let these libraries tell nothing but errors."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=WARNING)
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)


def hushed(evaluator: Any) -> Any:
    """Return an evaluator whose trainer draws no bar and no summary of the model."""
    from pytorch_lightning.callbacks import ModelSummary, ProgressBar

    trainer = evaluator.trainer
    trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, (ModelSummary, ProgressBar))]
    return evaluator
