"""What ``nni-dynconv doctor`` finds out: the diagnosis of an experiment's mutator, fresh or from a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .. import export
from ..diagnosis import Diagnosis, diagnose
from ..experiments import trial
from ..runs import Run
from ..search import loaders_of, step_of

__all__ = ["examine"]


def examine(
    settings: Mapping[str, Any],
    run: str | Path | None = None,
    *,
    progress: float | None = None,
    batches: int = 8,
    samples: int = 12,
    ignore: Collection[str] = (),
) -> Diagnosis:
    """Diagnose what an experiment would train, or has trained.

    Parameters
    ----------
    settings
        The checked ``tuner.classArgs``, in the long form.
    run
        Folder of a run (``launch --output``), or of a supernet such as multi-trial mode's checkpoint; ``None`` for a
        network with its first weights.
    progress
        As of :func:`diagnose`; by default 0 without a run, and 1 with one.
    batches
        Training batches of the evaluator to use, at most.
    samples, ignore
        As of :func:`diagnose`.

    Raises
    ------
    ConfigError
        The evaluator has no training batches, or several loaders.
    ExportError
        The folder holds no supernet of this space.
    """
    mutator, evaluator, _ = trial.build(settings, metric=None)
    loader = loaders_of(evaluator, "train", "diagnose with")
    evaluator.module.set_model(mutator.space)
    step, started = step_of(evaluator.module), None
    if run is not None:
        started = diagnose(mutator, loader, step=step, samples=1, limit=1).loss
        export.load_supernet(mutator, Run.supernet_in(run))
    if progress is None:
        progress = 0.0 if run is None else 1.0
    options: dict[str, Any] = {"progress": progress, "started": started, "ignore": ignore}
    return diagnose(mutator, loader, step=step, samples=samples, limit=batches, **options)
