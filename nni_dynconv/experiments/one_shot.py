"""What the tuner proposes in one-shot mode: whole searches, whose hyper-parameters an NNI tuner chooses."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from nni.tuner import Tuner

from ..errors import ConfigError
from ..settings import RunSettings, load_object, with_hyper_parameters

__all__ = ["OneShot", "make_hyper_tuner", "shifted_seeds"]

_logger = logging.getLogger(__name__)


class OneShot:
    """Each trial is a whole search: our settings go into each proposal, an NNI tuner chooses hyper-parameters."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._hyper_tuner: Tuner | None = None
        self._past: list[dict[str, Any]] = []
        self._open: set[int] = set()  # parameter ids that the hyper-tuner waits for
        self._names: set[str] = set()
        self._unfinished: list[Mapping[str, Any]] = []  # values of trials that NNI runs again after a resume

    def update_search_space(self, search_space: dict[str, Any], made: int) -> None:
        self._names = set(search_space)
        if self._hyper_tuner is None and search_space:
            self._hyper_tuner = make_hyper_tuner(self._settings, made)
        if self._hyper_tuner is not None:
            self._hyper_tuner.update_search_space(search_space)
            self._hyper_tuner.import_data(self._past)
            self._past = []

    def propose(self, parameter_id: int, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        values = self._hyper_parameters(parameter_id)
        self._open.add(parameter_id)
        settings = with_hyper_parameters(shifted_seeds(self._settings.to_dict(), number), values)
        return {"hyper_parameters": values}, {"mode": "one_shot", "settings": settings, "hyper_parameters": values}

    def _hyper_parameters(self, parameter_id: int) -> dict[str, Any]:
        """Values that no unfinished trial of an earlier life has: a tuner made anew does not know of these."""
        if self._hyper_tuner is None:
            return {}
        values = dict(self._hyper_tuner.generate_parameters(parameter_id))
        while values in self._unfinished:
            self._unfinished.remove(values)  # once: a tuner may propose the same values twice
            values = dict(self._hyper_tuner.generate_parameters(parameter_id))
        return values

    def objection(self, metric: float) -> None:
        """Nothing is too large for NNI's tuners, which calculate in Python's numbers."""

    def learn(self, proposed: Any, metric: float, parameter_id: int | None) -> None:
        if self._hyper_tuner is None:
            return
        values = proposed.get("hyper_parameters") if isinstance(proposed, Mapping) else None
        if not isinstance(values, Mapping) or set(values) != self._names:
            _logger.warning("A result without the hyper-parameters of this search space teaches nothing: %r", proposed)
            return
        if parameter_id is None or parameter_id not in self._open:
            self._hyper_tuner.import_data([{"parameter": values, "value": metric}])
        else:
            self._open.remove(parameter_id)
            self._hyper_tuner.receive_trial_result(parameter_id, values, metric)

    def trial_end(self, parameter_id: int, success: bool) -> None:
        """Tell the hyper-tuner of trials that end without a result; NNI's fail when that comes before a result."""
        if self._hyper_tuner is not None and parameter_id in self._open and not success:
            self._open.remove(parameter_id)
            self._hyper_tuner.trial_end(parameter_id, success)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The hyper-tuner is made anew (see :func:`make_hyper_tuner`) and learns from what is counted."""
        proposals = {str(number): proposed for number, proposed in state["proposals"].items()}
        results = {key: value for key, value in state["results"].items() if key in proposals}
        self._past = [{"parameter": proposals[key]["hyper_parameters"], "value": results[key]} for key in results]
        self._unfinished = [proposals[key]["hyper_parameters"] for key in proposals if key not in results]

    def pack(self, state: Mapping[str, Any]) -> bytes:
        return json.dumps(state).encode()

    def unpack(self, raw: bytes) -> dict[str, Any]:
        return json.loads(raw)


def make_hyper_tuner(settings: RunSettings, made: int) -> Tuner:
    """Make the NNI tuner of one-shot mode's hyper-parameters.

    Parameters
    ----------
    made
        Proposals made so far (after a resume): shifts the seed, or NNI's random tuner would repeat its first ones.
    """
    import inspect

    from nni.tools.package_utils import create_builtin_class_instance, get_algo_meta

    section = settings.hyper_tuner or {"name": "Random"}
    class_args = dict(section.get("classArgs") or {})
    meta = get_algo_meta(section["name"])
    if meta is None or meta.class_name is None:
        raise ConfigError(f"Unknown tuner `{section['name']}` in section `tuner.classArgs.hyper_tuner`.")
    module_name, _, class_name = meta.class_name.rpartition(".")
    accepted = inspect.signature(load_object(f"{module_name}:{class_name}")).parameters
    defaults = {"seed": settings.seed, "optimize_mode": settings.optimize_mode}
    class_args = {**{key: value for key, value in defaults.items() if key in accepted}, **class_args}
    if isinstance(class_args.get("seed"), int):
        class_args["seed"] += made
    return create_builtin_class_instance(section["name"], class_args, "tuners")


def shifted_seeds(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """Give each repeat its own seeds: those of the settings plus the proposal's number."""
    shifted = with_hyper_parameters(settings, {"seed": settings["seed"] + number})
    sampler = shifted["sampler"]
    if isinstance(sampler.get("seed"), int):
        sampler["seed"] += number
    return shifted
