"""What a trial process of ``nnictl`` runs: ``python3 -m nni_dynconv.trial``. A whole search, or one architecture.

With ``CONFIG``, whose settings it takes, it serves the trials of any other tuner of NNI's.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.nas.evaluator.pytorch import Lightning
from torch import nn

from .. import export
from ..errors import ConfigError
from ..files import write_atomically
from ..generation import ArchitectureEncoder, unasked_in
from ..phases import carried, phase
from ..runs import CRASH_FILE, ERROR_FILE, Run
from ..search import (
    Allotted,
    DynamicStrategy,
    Evaluators,
    Goal,
    KeepEpochs,
    TellPhase,
    Trained,
    Writer,
    first_batches,
    words_of,
)
from ..settings import RunSettings, call_object, check_class_args, load_object, load_yaml
from ..supernet import DynamicWeightMutator, input_of
from .logs import keep_logs
from .picturing import ShowWeights
from .reporting import ReportMetric
from .search_space import sample_of
from .time_given import age, until
from .words import told

__all__ = [
    "ReportMetric",
    "build",
    "check_launcher",
    "evaluate_one",
    "evaluate_proposal",
    "goal_in",
    "main",
    "search",
    "warm_up",
]

SUMMARY = "summary.json"
"""What is written last of all."""
STOPPED = {128 + number for number in (1, 2, 15)}
"""Statuses of a run that a signal ended, and that goes on when it is started again."""
PROPOSAL = "NNI_DYNCONV_PROPOSAL"


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
    made: list[Any] = []

    def first_input() -> Any:
        made.append(_evaluator_of(checked))
        (batch,) = first_batches(made[0].train_dataloaders, 1, lambda one: one)
        return input_of(batch, nn.Module())

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
        making_budget=checked.making_budget,
        example=first_input,
    )
    if mutator.fitted is not None:
        print(mutator.fitted, flush=True)
    evaluator = made[0] if made else _evaluator_of(checked)
    callback = ReportMetric(checked.metric)
    evaluator.trainer.callbacks += [callback, ShowWeights()]
    return mutator, evaluator, callback


def _evaluator_of(checked: RunSettings) -> Any:
    evaluator = call_object(checked.evaluator, "evaluator", checked.evaluator_args)
    if not isinstance(evaluator, Lightning):
        raise ConfigError(
            f"`{checked.evaluator}` gave a {type(evaluator).__name__}, but must give an evaluator of NNI's: "
            f"`nni.nas.evaluator.pytorch.Lightning(module, Trainer(...), train_dataloaders=..., val_dataloaders=...)`."
        )
    return evaluator


def _decided_in(settings: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Return the settings with the recipes that ``delta: auto`` picked when this run began, if it has."""
    before = Run(folder).facts.get("settings") or {}
    if {**before, "per_site": settings.get("per_site")} != dict(settings):
        return settings
    return {**settings, "per_site": before.get("per_site")}


def _decided(settings: Mapping[str, Any], mutator: DynamicWeightMutator) -> Mapping[str, Any]:
    """Return the settings with what ``delta: auto`` has picked, so that whoever goes on with the run has the same."""
    if mutator.fitted is None:
        return settings
    return {**settings, "per_site": {name: asdict(one) for name, one in mutator.source.recipes.items()}}


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


def goal_in(settings: Mapping[str, Any]) -> Goal | None:
    """Return what a run's settings say that a network is measured by; ``None`` where they name no metric."""
    metric, mode = settings.get("metric"), settings.get("optimize_mode", "maximize")
    return None if metric is None else Goal(metric, "max" if mode == "maximize" else "min")


def train_supernet(mutator: DynamicWeightMutator, evaluator: Any, options: Mapping[str, Any]) -> None:
    """Train a supernet in this process, and leave it at that."""
    with _asking():
        mutator.strategy(**options).mutate_evaluator(evaluator).search(mutator.space)


@contextmanager
def _asking() -> Iterator[None]:
    """For a block, say in words that batches carry a context, ``((x, context), y)``, that no setting asks for.

    Raises
    ------
    ContextError
        They do.
    """
    try:
        yield
    except Exception as error:
        unasked = unasked_in(error)
        if unasked is not None:
            raise unasked from error
        raise


def search(
    settings: Mapping[str, Any], folder: Path, proposal: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Run a whole one-shot search, from the first step to a trained network; write the run into a folder.

    Parameters
    ----------
    seconds
        That it may take, from the beginning of its process on; ``None``: as long as it takes.

    Returns
    -------
    The summary that lies in ``summary.json``.

    Notes
    -----
    NNI is told one result, that of the network that is saved. What fails after that is noted in ``run.json``, and the
    trial succeeds.
    """
    over = folder / SUMMARY
    if over.is_file() and not Run(folder).is_unfinished:  # it was killed as it ended
        return json.loads(over.read_text(encoding="utf-8"))
    settings = _decided_in(settings, folder)
    with phase("building"):
        mutator, evaluator, callback = build(settings)
    settings = _decided(settings, mutator)
    writer = _begin(settings, evaluator, folder)
    callback.reports.about = {} if proposal is None else {"proposal": proposal}
    strategy = mutator.strategy(
        **(settings.get("strategy") or {}),
        folder=writer.run,
        baselines=settings.get("baselines"),
        metric=settings.get("metric"),
        optimize_mode=settings.get("optimize_mode", "maximize"),
        reports=callback.reports,
        allotted=Allotted(math.inf if seconds is None else max(seconds - age(), 0.0), until()),
    )
    with _asking():
        strategy.mutate_evaluator(evaluator).evaluate(mutator.space)
    sample = strategy.network.architecture
    summary: dict[str, Any] = {"architecture": sample, "seeds": [settings.get("seed", 0)]}
    if strategy.trained.cut:
        summary["cut"] = list(strategy.trained.cut)
    if mutator.sampler.front:
        summary["front"] = mutator.sampler.front
    if writer.first:
        writer.without_failing("report", lambda: summary.update(_report(settings, mutator, sample, folder)))
        write_atomically(over, (json.dumps(summary, indent=2) + "\n").encode())
        _write_for_netron(writer, strategy)
        writer.shown()  # again, with what the report has added
        writer.over()
    return summary


def _write_for_netron(writer: Writer, strategy: DynamicStrategy) -> None:
    """Write what NNI's page can open, where there is time."""
    if strategy.has_time:
        writer.for_netron(strategy.network)
    elif export.has_onnx():
        left_out = "`model.onnx` was left out. `nni-dynconv export RUN --to onnx` writes it."
        writer.cut([*strategy.trained.cut, left_out])


def _begin(settings: Mapping[str, Any], evaluator: Any, folder: Path) -> Writer:
    """Start a run's folder: with its settings, and where its code lies, a command can go on with it."""
    keep_logs(evaluator.trainer, folder)
    writer = Writer(Run(folder), evaluator.trainer.is_global_zero)
    code = Path(os.environ.get("NNI_CODE_DIR", ".")).resolve()
    writer.began(settings=settings, code_directory=str(code))
    return writer


def _report(
    settings: Mapping[str, Any], mutator: DynamicWeightMutator, sample: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return what the user's own report adds to the summary."""
    if not settings.get("report"):
        return {}
    return dict(load_object(settings["report"])(mutator, sample, folder, **settings.get("report_args", {})))


def evaluate_one(
    settings: Mapping[str, Any], sample: Mapping[str, Any], folder: Path, proposal: int | None = None
) -> None:
    """Train and score one architecture, from the shared checkpoint on; write it into a folder."""
    with phase("building"):
        mutator, evaluator, callback = build(settings)
        export.load_supernet(mutator, Path(os.environ.get("NNI_CODE_DIR", ".")) / settings["checkpoint"])
        network = mutator.freeze(sample)
    writer, reports = _begin(settings, evaluator, folder), callback.reports
    history = None if writer.run is None else writer.run.history
    evaluator.trainer.callbacks += [TellPhase("training"), KeepEpochs(history, "training")]
    reports.about = {} if proposal is None else {"proposal": proposal}
    with reports.between():
        reports.phase = "final"
        evaluator.evaluate(network)
        value = callback.last(evaluator.trainer)
        epochs = evaluator.trainer.max_epochs or 1
        trained = Trained(network.cpu().eval(), "generated", epochs, callback.name, value)
        writer.trained(trained)
        reports.final(value, architecture=words_of(network.architecture))
    writer.exported(trained, Evaluators(evaluator, [mutator]))
    writer.shown()


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
    seed = settings.seed + nni.get_sequence_id()  # such a tuner does not number its proposals
    evaluate_one({**settings.to_dict(), "seed": seed}, sample, folder)


def next_proposal() -> Any:
    """Ask NNI for the proposal, which tells it once: further processes of Lightning's `ddp` get it from the first."""
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and PROPOSAL in os.environ:
        return json.loads(os.environ[PROPOSAL])
    proposal = nni.get_next_parameter()
    os.environ[PROPOSAL] = json.dumps(proposal)
    return proposal


def main(arguments: Sequence[str] = ()) -> None:
    """Take a proposal from NNI and run it; what goes wrong is left in words, too, for ``launch`` to tell."""
    folder = Path(os.environ.get("NNI_OUTPUT_DIR", "."))
    try:
        with _telling_crashes(folder), carried(folder) if _is_first() else nullcontext():
            _run(next_proposal(), arguments, folder)
    except (Exception, SystemExit) as error:
        status = error.code if isinstance(error, SystemExit) else 1
        # of several processes the first one's is the cause; one that a signal ended has not failed
        if not (folder / ERROR_FILE).exists() and status and status not in STOPPED:
            (folder / ERROR_FILE).write_text(told(error), encoding="utf-8")
        raise


def _is_first() -> bool:
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


@contextmanager
def _telling_crashes(folder: Path) -> Iterator[None]:
    """For a block, let an interpreter that crashes say so in a file: it leaves no other word."""
    path = folder / CRASH_FILE
    with path.open("w") as file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()
    if _is_first():
        path.unlink(missing_ok=True)


def _run(parameters: Any, arguments: Sequence[str], folder: Path) -> None:
    if arguments and parameters:
        evaluate_proposal(arguments[0], parameters, folder)
    elif not parameters or "mode" not in parameters:
        raise ConfigError(
            f"This trial was given {parameters!r}, which is no proposal of the tuner `DynamicWeightMutator`. Start it "
            f"through NNI: `nni-dynconv launch CONFIG` or `nnictl create --config CONFIG`. For another tuner the "
            f"command is `python3 -m nni_dynconv.trial CONFIG`."
        )
    elif parameters["mode"] == "one_shot":
        search(parameters["settings"], folder, parameters.get("proposal"), parameters.get("seconds"))
    else:
        evaluate_one(parameters["settings"], parameters["sample"], folder, parameters.get("proposal"))


if __name__ == "__main__":
    main(sys.argv[1:])
