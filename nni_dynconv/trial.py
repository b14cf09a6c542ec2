"""What a trial process of ``nnictl`` runs: ``python3 -m nni_dynconv.trial``. A whole search, or one architecture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from . import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytorch_lightning as pl
import torch

from . import export
from .config import check_class_args
from .errors import ConfigError
from .mutator import DynamicWeightMutator
from .references import load_object
from .source import Base

__all__ = ["ReportMetric", "build", "evaluate_one", "main", "search", "warm_up"]


class ReportMetric(pl.Callback):
    """Tell NNI a logged validation metric after each epoch, and keep the last.

    Parameters
    ----------
    name
        As the evaluator's ``self.log`` names it. ``None``: the evaluator reports by itself, as NNI's own do.
    """

    def __init__(self, name: str | None):
        self.name = name
        self.last: float | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.name is None or trainer.sanity_checking:
            return
        if self.name not in trainer.callback_metrics:
            known = sorted(name for name in trainer.callback_metrics if not name.startswith("prob/"))
            raise ConfigError(f"`metric` is `{self.name}`, but the evaluator logs {known} in validation.")
        self.last = float(trainer.callback_metrics[self.name])
        nni.report_intermediate_result(self.last)

    def report_final(self, proposal: int | None) -> None:
        """Tell NNI the last value as the trial's result, with the number of the proposal that it answers."""
        if self.last is not None:
            nni.report_final_result({"default": self.last, "proposal": proposal} if proposal is not None else self.last)


def build(settings: Mapping[str, Any], **changes: Any) -> tuple[DynamicWeightMutator, Any, ReportMetric]:
    """Make mutator and evaluator out of a run's settings.

    Parameters
    ----------
    settings
        The long form of ``tuner.classArgs`` that the tuner puts in each proposal.
    **changes
        Settings to replace.

    Returns
    -------
    Mutator, NNI's Lightning evaluator, and the callback in it that reports.
    """
    checked = check_class_args({**settings, **changes}, where="the trial's settings")
    torch.manual_seed(checked.seed)
    mutator = DynamicWeightMutator(
        load_object(checked.space)(**checked.space_args),
        controller=checked.controller.build(),
        sampler=checked.sampler.build(**({} if "seed" in checked.sampler.args else {"seed": checked.seed})),
        context=checked.context.build() if checked.context is not None else None,
        base=cast(Base, checked.base),
    )
    evaluator = load_object(checked.evaluator)(**checked.evaluator_args)
    callback = ReportMetric(checked.metric)
    evaluator.trainer.callbacks.append(callback)
    return mutator, evaluator, callback


def train_supernet(mutator: DynamicWeightMutator, evaluator: Any, options: Mapping[str, Any]) -> None:
    """Run the one-shot search in this process."""
    mutator.strategy(**options).mutate_evaluator(evaluator).evaluate(mutator.space)


def search(settings: Mapping[str, Any], folder: Path, proposal: int | None = None) -> dict[str, Any]:
    """Run a whole one-shot search; write architecture, networks and report into a folder.

    Returns
    -------
    The summary that lies in ``summary.json``.
    """
    mutator, evaluator, callback = build(settings)
    train_supernet(mutator, evaluator, settings.get("strategy") or {})
    sample = mutator.export()
    export.save_supernet(mutator, folder / "supernet")
    export.save(mutator.freeze(sample), folder)
    summary: dict[str, Any] = {"architecture": sample, "seeds": [settings.get("seed", 0)]}
    if settings.get("report"):
        summary |= load_object(settings["report"])(mutator, sample, folder, **settings.get("report_args", {}))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    callback.report_final(proposal)
    return summary


def evaluate_one(
    settings: Mapping[str, Any], sample: Mapping[str, Any], folder: Path, proposal: int | None = None
) -> None:
    """Train and score one architecture, from the shared checkpoint on; write it into a folder."""
    mutator, evaluator, callback = build(settings)
    export.load_supernet(mutator, settings["checkpoint"])
    network = mutator.freeze(sample)
    evaluator.evaluate(network)
    export.save(network, folder)
    callback.report_final(proposal)


def warm_up(settings: Mapping[str, Any], path: str | Path) -> None:
    """Train the shared checkpoint of multi-trial mode: the supernet and its controller, on uniformly drawn paths."""
    mutator, evaluator, _ = build(settings, sampler={"name": "random"}, checkpoint=None, mode="one_shot", metric=None)
    train_supernet(mutator, evaluator, {"contenders": 0})
    export.save_supernet(mutator, path)


def main() -> None:
    """Take a proposal from NNI and run it."""
    parameters = nni.get_next_parameter()
    if not parameters or "mode" not in parameters:
        raise ConfigError(
            f"This trial was given {parameters!r}, which is no proposal of the tuner `DynamicWeightMutator`. Start it "
            f"through NNI: `nni-dynconv launch CONFIG` or `nnictl create --config CONFIG`."
        )
    folder = Path(os.environ.get("NNI_OUTPUT_DIR", "."))
    if parameters["mode"] == "one_shot":
        search(parameters["settings"], folder, parameters.get("proposal"))
    else:
        evaluate_one(parameters["settings"], parameters["sample"], folder, parameters.get("proposal"))


if __name__ == "__main__":
    main()
