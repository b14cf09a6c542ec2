"""What makes a run again, and goes on with it, as commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..runs import Run

__all__ = ["commands_of", "experiment_of"]


def commands_of(run: Run) -> Sequence[str]:
    """Return the commands that make a run again and go on with it; of one that Python code wrote, those that serve."""
    name = run.folder.name
    again = f"nni-dynconv launch experiment.yml --output {name}-again" if run.facts.get("settings") else None
    use = f"python -c \"import nni_dynconv; print(nni_dynconv.load('{name}'))\"" if run.network.is_file() else None
    train = f"nni-dynconv train {name}" if "architecture" in run.facts and run.facts.get("settings") else None
    report = f"nni-dynconv report {name}"
    return tuple(one for one in (again, train, report, use) if one is not None)


def experiment_of(settings: Mapping[str, Any]) -> str:
    """Return the whole experiment of some settings, as a YAML for ``nni-dynconv launch``.

    Parameters
    ----------
    settings
        The long form of ``tuner.classArgs``.
    """
    whole = {
        "experimentName": "again",
        "maxTrialNumber": 1,
        "trialConcurrency": 1,
        "trialCommand": "python3 -m nni_dynconv.trial",
        "trialCodeDirectory": ".",
        "trainingService": {"platform": "local"},
        "searchSpace": {},
        "tuner": {"name": "DynamicWeightMutator", "classArgs": _stated(settings)},
    }
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


def _stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without what is left open."""
    return {name: one for name, one in settings.items() if one is not None and one != {}}
