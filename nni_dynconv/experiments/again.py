"""Going on with a run that is over: more training, or another try of its export."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)

from .. import export
from ..errors import ContextError, RunError
from ..files import write_atomically
from ..generation import DynamicNetwork
from ..runs import TRAINED, Run
from ..search import Evaluators, Goal, Jury, Trained, Writer, goal_of, load_weights, save_shown, train_network
from ..supernet import DynamicWeightMutator
from .logs import keep_logs
from .trial import build, check_launcher, goal_in

__all__ = ["Opened", "cluster_weights", "export_again", "reopen", "train_on"]

CONTEXTS = 1024
"""So many of the training data's are clustered."""
COUNTS = (1, 2, 4, 8, 16)


class Opened(NamedTuple):
    """A run with what its settings say, made anew.

    Parameters
    ----------
    run, settings
        The folder, and the long form of ``tuner.classArgs``.
    mutator, evaluator
        Of the settings; the mutator has the weights of the supernet where the run has one.
    network
        The architecture that was found, with the weights that the run kept.
    """

    run: Run
    settings: Mapping[str, Any]
    mutator: DynamicWeightMutator
    evaluator: Any
    network: DynamicNetwork


def reopen(folder: str | Path, settings: Mapping[str, Any] | None = None) -> Opened:
    """Make mutator, evaluator and network of a run; this process then stands where its code lies.

    Parameters
    ----------
    settings
        The long form of ``tuner.classArgs``; the run's own by default.

    Raises
    ------
    RunError
        There is no run, none that found anything, or one that knows no settings: it was written by Python code.
    """
    run = Run.read(Path(folder).resolve())
    architecture = run.architecture
    given = run.facts.get("settings") if settings is None else settings
    if given is None:
        raise RunError(
            f"The run in `{folder}` was written by Python code, so that no YAML says how its space and evaluator are "
            f"made. Give one, `--config CONFIG`, or go on in Python: `mutator.freeze(sample)`, `train_final`."
        )
    _enter(run.facts.get("code_directory"))
    mutator, evaluator, _ = build(given, metric=None)
    check_launcher(evaluator)
    keep_logs(evaluator.trainer, run.folder)
    if run.supernet.is_dir():
        export.load_supernet(mutator, run.supernet)
    network = mutator.freeze(architecture).eval()
    load_weights(network, run.weights)
    return Opened(run, given, mutator, evaluator, network)


def _enter(code_directory: str | None) -> None:
    """Stand where a trial stood; where that is no folder of this machine, stay."""
    if code_directory is not None and Path(code_directory).is_dir():
        os.chdir(code_directory)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def train_on(folder: str | Path, epochs: int | None = None, settings: Mapping[str, Any] | None = None) -> Trained:
    """Train what a run left, from the weights that it has, and write and export it; a result that is no better is not.

    Parameters
    ----------
    epochs
        ``final_epochs`` of the run's settings by default, or, where that is 0, the evaluator's own number.
    settings
        As of :func:`reopen`.

    Returns
    -------
    How the training ended, written or not: compare its ``result`` with the run's.
    """
    opened = reopen(folder, settings)
    options, goal = opened.settings.get("strategy") or {}, goal_in(opened.settings)
    epochs = epochs or options.get("final_epochs") or None
    clip = options.get("gradient_clip_val")
    evaluators = Evaluators(opened.evaluator, [opened.mutator], **({} if clip is None else {"gradient_clip_val": clip}))
    run, writer = opened.run, Writer(opened.run, opened.evaluator.trainer.is_global_zero)
    trained = train_network(
        opened.network, evaluators, epochs, goal, run.facts.get("start", "generated"), history=run.history
    )
    if not _is_better(trained, run, goal):
        return trained
    earlier = int(run.facts.get("epochs", 0)) if run.facts.get("state") == TRAINED else 0
    writer.trained(replace(trained, cut=run.facts.get("cut", ())))
    run.note(epochs=earlier + trained.epochs)
    writer.exported(trained, evaluators)
    writer.shown()
    return trained


def _is_better(trained: Trained, run: Run, goal: Goal | None) -> bool:
    """Whether a training was worth being written: what was not trained before always is."""
    before, now = run.facts.get("result"), trained.result
    if run.facts.get("state") != TRAINED or before is None or now is None or trained.metric != run.facts.get("metric"):
        return True
    return Goal(str(trained.metric), "min" if goal is None else goal.mode).better(now, float(before))


def export_again(folder: str | Path, settings: Mapping[str, Any] | None = None) -> Run:
    """Try a run's export again.

    Raises
    ------
    ExportError
        It fails again; the run stays as it is.
    """
    opened = reopen(folder, settings)
    save_shown(opened.network, Evaluators(opened.evaluator, [opened.mutator]), opened.run.folder)
    opened.run.mark("export", None)
    Writer(opened.run).shown()
    return opened.run


def cluster_weights(
    folder: str | Path,
    clusters: int | None = None,
    tolerance: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[export.Clusters, Path | None]:
    """Measure a run's network with few sets of weights, and save the one with as many as are enough.

    Parameters
    ----------
    clusters
        Save the network with so many; what is recommended by default.
    tolerance
        As of :class:`nni_dynconv.export.Clusters`.
    settings
        As of :func:`reopen`.

    Returns
    -------
    What was found, and the folder of the network; ``None`` where none is recommended.

    Raises
    ------
    ContextError
        The network's weights are made from no context that is given.
    """
    opened = reopen(folder, settings)
    network, evaluators = opened.network, Evaluators(opened.evaluator, [opened.mutator], enable_progress_bar=False)
    example = evaluators.called(network)
    if example is None:
        raise RunError("The evaluator's step calls no network, so that there are no contexts to cluster.")
    jury = Jury(evaluators, goal_of(evaluators.callbacks, goal_in(opened.settings)))
    found, made = export.try_clusters(
        network,
        evaluators.contexts(network, CONTEXTS),
        jury.measured,
        example,
        mode=jury.goal.mode,
        counts=sorted({*COUNTS, clusters or 1}),
        tolerance=tolerance,
        measured_on=jury.measured_on,
    )
    write_atomically(opened.run.clusters, f"{found.to_json()}\n".encode())
    count = clusters or found.recommended
    if count is None:
        Writer(opened.run).shown()
        return found, None
    if count not in made:
        raise ContextError(f"{count} clusters of {found.contexts} contexts: give more data, or take fewer.")
    place = opened.run.clusters.with_suffix("")
    results = next(row.metrics for row in found.rows if row.clusters == count)
    save_shown(made[count], evaluators, place, results)
    Writer(opened.run).shown()
    return found, place
