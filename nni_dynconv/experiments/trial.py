"""What a trial process of ``nnictl`` runs: ``python3 -m nni_dynconv.trial``. A whole search, or one architecture.

With ``CONFIG``, whose settings it takes, it serves the trials of any other tuner of NNI's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.trainer.states import TrainerFn

from .. import export
from ..errors import ConfigError
from ..generation import ArchitectureEncoder, DynamicNetwork, unasked_in
from ..search import distributed
from ..settings import call_object, check_class_args, load_object, load_yaml
from ..supernet import DynamicWeightMutator
from .search_space import sample_of

__all__ = ["ReportMetric", "build", "check_launcher", "evaluate_one", "evaluate_proposal", "main", "search", "warm_up"]

PROPOSAL = "NNI_DYNCONV_PROPOSAL"


class ReportMetric(pl.Callback):
    """Tell NNI a logged validation metric after each epoch of a training, and once more in the end.

    Of several processes, the first one reports.

    Parameters
    ----------
    name
        As the evaluator's ``self.log`` names it. ``None``: the evaluator reports by itself, as NNI's own do.
    """

    def __init__(self, name: str | None):
        self.name = name

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.name is None or trainer.sanity_checking:
            return
        if self.name not in trainer.callback_metrics:
            known = sorted(name for name in trainer.callback_metrics if not name.startswith("prob/"))
            raise ConfigError(f"`metric` is `{self.name}`, but the evaluator logs {known} in validation.")
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING:
            nni.report_intermediate_result(self.last(trainer))

    def last(self, trainer: pl.Trainer) -> float | None:
        """Return what the last validation logged, which Lightning also brings back from processes that it started."""
        value = trainer.callback_metrics.get(self.name) if self.name is not None else None
        return None if value is None else float(value)

    def report_final(self, trainer: pl.Trainer, proposal: int | None) -> None:
        """Tell NNI the last value as the trial's result, with the number of the proposal that it answers."""
        last = self.last(trainer)
        if last is not None and trainer.is_global_zero:
            nni.report_final_result({"default": last, "proposal": proposal} if proposal is not None else last)


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
        call_object(checked.space, "space", checked.space_args),
        controller=checked.controller.build(),
        sampler=checked.sampler.build(**({} if "seed" in checked.sampler.args else {"seed": checked.seed})),
        context=checked.context.build() if checked.context is not None else None,
        architecture=None if checked.architecture is None else ArchitectureEncoder(**checked.architecture),
        base=checked.base,
        delta=checked.delta,
        rank=checked.rank,
        per_site=checked.per_site,
    )
    evaluator = call_object(checked.evaluator, "evaluator", checked.evaluator_args)
    if not isinstance(evaluator, Lightning):
        raise ConfigError(
            f"`{checked.evaluator}` gave a {type(evaluator).__name__}, but must give an evaluator of NNI's: "
            f"`nni.nas.evaluator.pytorch.Lightning(module, Trainer(...), train_dataloaders=..., val_dataloaders=...)`."
        )
    callback = ReportMetric(checked.metric)
    evaluator.trainer.callbacks.append(callback)
    return mutator, evaluator, callback


def check_launcher(evaluator: Any) -> None:
    """Refuse what starts a command of ours again for each further process; a trial may be started again.

    Raises
    ------
    ConfigError
        The evaluator's trainer does so.
    """
    launcher = evaluator.trainer.strategy.launcher
    if launcher is not None and not launcher.is_interactive_compatible:
        raise ConfigError(
            "The strategy of the evaluator's trainer starts this command again for each further process, which then "
            'would write the same files. Give the trainer `strategy="ddp_fork"`, or one device.'
        )


def train_supernet(mutator: DynamicWeightMutator, evaluator: Any, options: Mapping[str, Any]) -> Any:
    """Run the one-shot search in this process; return the evaluator of the search.

    Raises
    ------
    ContextError
        Batches carry a context, ``((x, context), y)``, that no setting asks for.
    """
    searching = mutator.strategy(**options).mutate_evaluator(evaluator)
    try:
        searching.evaluate(mutator.space)
    except Exception as error:
        unasked = unasked_in(error)
        if unasked is not None:
            raise unasked from error
        raise
    return searching


def take_export(mutator: DynamicWeightMutator, searching: Any, validated: bool) -> DynamicNetwork:
    """Settle on an architecture and freeze it, with BatchNorm statistics of its own; they stay in the copy.

    Parameters
    ----------
    validated
        Whether it is validated too, with the same statistics: the last epoch validated what would have been exported
        then.
    """
    distributed.agree(mutator.sampler)
    sample = mutator.export()
    with searching.module.own_statistics(sample):
        network = mutator.freeze(sample)
        if validated:
            mutator.sampler.settle(sample)
            module = searching.datamodule
            data = {"dataloaders": searching.val_dataloaders} if module is None else {"datamodule": module}
            searching.trainer.validate(searching.module, verbose=False, **data)
    return network


def search(settings: Mapping[str, Any], folder: Path, proposal: int | None = None) -> dict[str, Any]:
    """Run a whole one-shot search; write architecture, networks and report into a folder.

    Returns
    -------
    The summary that lies in ``summary.json``.

    Notes
    -----
    The result is what one more validation of the exported architecture gives, with the BatchNorm statistics that it is
    saved with. An evaluator that reports by itself has reported before that, what it measured in its last epoch.
    """
    mutator, evaluator, callback = build(settings)
    searching = train_supernet(mutator, evaluator, settings.get("strategy") or {})
    network = take_export(mutator, searching, validated=callback.name is not None)
    summary: dict[str, Any] = {"architecture": network.architecture, "seeds": [settings.get("seed", 0)]}
    if evaluator.trainer.is_global_zero:
        summary |= _write(settings, mutator, network, folder)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    callback.report_final(evaluator.trainer, proposal)
    return summary


def _write(
    settings: Mapping[str, Any], mutator: DynamicWeightMutator, network: DynamicNetwork, folder: Path
) -> dict[str, Any]:
    """Write the networks of a search; return what the user's own report adds to the summary."""
    export.save_supernet(mutator, folder / "supernet")
    export.save(network, folder)
    if not settings.get("report"):
        return {}
    report = load_object(settings["report"])
    return dict(report(mutator, network.architecture, folder, **settings.get("report_args", {})))


def evaluate_one(
    settings: Mapping[str, Any], sample: Mapping[str, Any], folder: Path, proposal: int | None = None
) -> None:
    """Train and score one architecture, from the shared checkpoint on; write it into a folder."""
    mutator, evaluator, callback = build(settings)
    export.load_supernet(mutator, Path(os.environ.get("NNI_CODE_DIR", ".")) / settings["checkpoint"])
    network = mutator.freeze(sample)
    evaluator.evaluate(network)
    if evaluator.trainer.is_global_zero:
        export.save(network, folder)
    callback.report_final(evaluator.trainer, proposal)


def warm_up(settings: Mapping[str, Any], path: str | Path) -> None:
    """Train the shared checkpoint of multi-trial mode: the supernet and its controller, on uniformly drawn paths.

    Nothing is compared in the end, whatever the settings say: the trials do that.
    """
    mutator, evaluator, _ = build(settings, sampler={"name": "random"}, checkpoint=None, mode="one_shot", metric=None)
    check_launcher(evaluator)
    train_supernet(mutator, evaluator, {**(settings.get("strategy") or {}), "contenders": 0, "rerank": 0})
    if evaluator.trainer.is_global_zero:
        export.save_supernet(mutator, path)


def evaluate_proposal(config: str | Path, proposal: Mapping[str, Any], folder: Path) -> None:
    """Train and score the architecture that an NNI tuner proposed out of what ``nni-dynconv space`` printed.

    Parameters
    ----------
    config
        YAML whose ``tuner.classArgs``, of multi-trial mode, say how; another tuner may stand in the experiment's own.
    proposal
        A value for each label of the space.
    folder
        Receives the network.
    """
    class_args = load_yaml(config).get("tuner", {}).get("classArgs") or {}
    settings = check_class_args(class_args, f"{config}, section `tuner.classArgs`")
    if settings.mode != "multi_trial":
        raise ConfigError(f"`mode` in {config} is `{settings.mode}`, but a trial of one architecture is `multi_trial`.")
    sample = sample_of(load_object(settings.space)(**settings.space_args), proposal)
    evaluate_one(settings.to_dict(), sample, folder)


def next_proposal() -> Any:
    """Ask NNI for the proposal, which tells it once: further processes of Lightning's `ddp` get it from the first."""
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and PROPOSAL in os.environ:
        return json.loads(os.environ[PROPOSAL])
    proposal = nni.get_next_parameter()
    os.environ[PROPOSAL] = json.dumps(proposal)
    return proposal


def main(arguments: Sequence[str] = ()) -> None:
    """Take a proposal from NNI and run it."""
    parameters = next_proposal()
    folder = Path(os.environ.get("NNI_OUTPUT_DIR", "."))
    if arguments and parameters:
        evaluate_proposal(arguments[0], parameters, folder)
    elif not parameters or "mode" not in parameters:
        raise ConfigError(
            f"This trial was given {parameters!r}, which is no proposal of the tuner `DynamicWeightMutator`. Start it "
            f"through NNI: `nni-dynconv launch CONFIG` or `nnictl create --config CONFIG`. For another tuner the "
            f"command is `python3 -m nni_dynconv.trial CONFIG`."
        )
    elif parameters["mode"] == "one_shot":
        search(parameters["settings"], folder, parameters.get("proposal"))
    else:
        evaluate_one(parameters["settings"], parameters["sample"], folder, parameters.get("proposal"))


if __name__ == "__main__":
    main(sys.argv[1:])
