"""What a run is, so that a checkpoint of another one is not taken for its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from pytorch_lightning import Trainer

from ...settings import StrategySettings
from ...supernet import DynamicWeightMutator

__all__ = ["described"]

FREE = ("checkpoint_minutes", "log_every", "diagnose_every")
"""Options that change nothing of what a run computes."""


def described(
    mutator: DynamicWeightMutator, settings: StrategySettings, module: Any, trainer: Trainer
) -> dict[str, Any]:
    """Return settings, choices, shapes and lengths, as plain data."""
    strategy = {name: one for name, one in asdict(settings).items() if name not in FREE}
    choices = {str(label): [repr(one) for one in choice.candidates] for label, choice in mutator.choices.items()}
    shapes = {name: list(one.shape) for name, one in mutator.space.named_parameters()}
    return {
        "strategy": strategy,
        "sampler": type(mutator.sampler).__qualname__,
        "choices": choices,
        "shapes": shapes,
        "evaluator": type(module).__qualname__,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "precision": str(trainer.precision),
    }
