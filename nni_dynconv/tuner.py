"""The NNI tuner behind ``tuner.name: DynamicWeightMutator``: proposes to trials, learns from them, saves itself.

NNI gives a tuner process ten seconds to connect, and constructs the tuner before that: neither this module nor the
constructor imports torch, Lightning or ``nni.nas``. They are loaded by ``update_search_space``, NNI's first call.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nni.tuner import Tuner

from .compat import mend_resume
from .config import (
    RunSettings,
    check_class_args,
    check_search_space,
    with_hyper_parameters,
)
from .errors import ConfigError, DynConvError
from .references import load_object

__all__ = ["DynamicWeightTuner"]

_logger = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])

STATE_FILE = "dynamic_weight_tuner.state"


def _ends_dispatcher_on_error(method: _Method) -> _Method:
    """End the tuner process when a call of NNI's fails, so that NNI sees it.

    NNI 3.0 runs these calls in a thread of the dispatcher. When one raises, the thread ends, and the experiment stays
    ``RUNNING`` for ever without a trial. A closed connection is what NNI notices (status ``ERROR``).
    """

    @functools.wraps(method)
    def guarded(self: DynamicWeightTuner, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            if os.environ.get("SDK_PROCESS") != "dispatcher":
                raise
            if isinstance(error, DynConvError):
                _logger.error("%s: %s", type(error).__name__, error)
            else:
                _logger.exception("%s failed", method.__name__)
            logging.shutdown()
            os._exit(1)

    return guarded  # type: ignore[return-value]


class DynamicWeightTuner(Tuner):
    """Propose whole one-shot searches, or architectures for multi-trial ones, to the trials of an NNI experiment.

    A trial receives ``{"mode", "settings", "proposal", ...}``; in one-shot mode also ``hyper_parameters`` (already put
    in their places in ``settings``), in multi-trial mode ``sample``. ``proposal`` is a number that is unique in the
    experiment's whole life. NNI's own parameter ids are not: after ``nnictl resume`` they start over at 1. A trial
    that reports ``{"default": value, "proposal": number}`` as its final result is matched exactly; NNI's records pair
    concurrent trials with one another's parameters at times.

    Parameters
    ----------
    **class_args
        ``tuner.classArgs`` of the experiment's YAML; see :class:`nni_dynconv.config.RunSettings`.

    Raises
    ------
    ConfigError
        In the words of ``nni-dynconv check``.
    """

    def __init__(self, **class_args: Any) -> None:
        super().__init__()
        if os.environ.get("SDK_PROCESS") == "dispatcher":
            mend_resume()
        self._code_directory = experiment_code_directory(sys.argv)
        self.settings: RunSettings = check_class_args(class_args, code_directory=self._code_directory)
        self._lock = threading.RLock()
        self._proposals: dict[int, dict[str, Any]] = {}  # number -> what the sampler or the hyper-tuner proposed
        self._results: dict[str, float] = {}  # number, or digest of a foreign result -> value: these are counted
        self._restored: bytes | None = None
        self._engine: _OneShot | _MultiTrial | None = None

    # What NNI calls, in this order

    @_ends_dispatcher_on_error
    def load_checkpoint(self) -> None:
        """Read the saved state; NNI calls this before the search space is known, so it is kept raw until then."""
        path = self._state_path()
        if path is not None and path.is_file():
            self._restored = path.read_bytes()
            _logger.info("Found saved state %s", path)

    @_ends_dispatcher_on_error
    def update_search_space(self, search_space: Mapping[str, Any] | None) -> None:
        """Load what is heavy (once) and take the search space: ``{}``, or hyper-parameters in one-shot mode."""
        check_search_space(search_space, self.settings, "the experiment")
        with self._lock:
            if self._engine is None:
                self._start()
            if isinstance(self._engine, _OneShot):
                self._engine.update_search_space(dict(search_space or {}), len(self._proposals))

    @_ends_dispatcher_on_error
    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Make the next proposal."""
        with self._lock:
            number = len(self._proposals)
            proposed, parameters = self._engine_now().propose(parameter_id, number)
            self._proposals[number] = proposed
            self._save()
        return {"proposal": number, **parameters}

    @_ends_dispatcher_on_error
    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Learn from a finished trial; results come in any order and on any thread."""
        self._learn(parameters, value, parameter_id)

    @_ends_dispatcher_on_error
    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take results from NNI: after ``resume`` those that are counted already, and those that came in between."""
        for entry in data:
            self._learn(entry.get("parameter"), entry.get("value"), None)

    # How

    def _start(self) -> None:
        if self._code_directory is not None and str(self._code_directory) not in sys.path:
            sys.path.insert(0, str(self._code_directory))
        self._engine = (_MultiTrial if self.settings.mode == "multi_trial" else _OneShot)(self)
        if self._restored is not None:
            self._restore(self._restored)
            self._restored = None

    def _engine_now(self) -> _OneShot | _MultiTrial:
        if self._engine is None:
            raise DynConvError("The tuner has no search space yet. Call `update_search_space` first.")
        return self._engine

    def _learn(self, parameters: Any, value: Any, parameter_id: int | None) -> None:
        number = _number_of(parameters, value)
        metric = _metric_of(value)
        if metric is None:
            _logger.warning("Result of proposal %s is not a finite number and teaches nothing: %r", number, value)
            return
        with self._lock:
            key = str(number) if number is not None else _digest(parameters, value)
            proposed = self._proposals.get(number, parameters) if number is not None else parameters
            if key in self._results:
                _logger.info("Result of proposal %s is counted already", number)
                return
            self._engine_now().learn(proposed, metric, parameter_id)
            self._results[key] = metric
            self._save()

    # State

    def _state_path(self) -> Path | None:
        folder = self.get_checkpoint_path()
        return Path(folder) / STATE_FILE if folder else None

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on: proposals, counted results, and the sampler's own state."""
        with self._lock:
            state = {"mode": self.settings.mode, "proposals": self._proposals, "results": self._results}
            return {**state, **self._engine_now().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        with self._lock:
            self._proposals = {int(number): one for number, one in state["proposals"].items()}
            self._results = dict(state["results"])
            self._engine_now().load_state_dict(state)

    def save_checkpoint(self) -> None:
        """Write the state, at once or not at all. NNI never calls this, so each proposal and result does."""
        path = self._state_path()
        if path is not None:
            with self._lock:
                write_atomically(path, self._engine_now().pack(self.state_dict()))

    _save = save_checkpoint

    def _restore(self, raw: bytes) -> None:
        self.load_state_dict(self._engine_now().unpack(raw))
        _logger.info("Restored %d proposals and %d results", len(self._proposals), len(self._results))


class _OneShot:
    """Each trial is a whole search: our settings go into each proposal, an NNI tuner chooses hyper-parameters."""

    def __init__(self, tuner: DynamicWeightTuner) -> None:
        self._settings = tuner.settings
        self._hyper_tuner: Tuner | None = None
        self._past: list[dict[str, Any]] = []

    def update_search_space(self, search_space: dict[str, Any], made: int) -> None:
        if self._hyper_tuner is None and search_space:
            self._hyper_tuner = make_hyper_tuner(self._settings, made)
        if self._hyper_tuner is not None:
            self._hyper_tuner.update_search_space(search_space)
            self._hyper_tuner.import_data(self._past)
            self._past = []

    def propose(self, parameter_id: int, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        values = self._hyper_tuner.generate_parameters(parameter_id) if self._hyper_tuner is not None else {}
        values = dict(values)
        settings = with_hyper_parameters(shifted_seeds(self._settings.to_dict(), number), values)
        return {"hyper_parameters": values}, {"mode": "one_shot", "settings": settings, "hyper_parameters": values}

    def learn(self, proposed: Any, metric: float, parameter_id: int | None) -> None:
        if self._hyper_tuner is None:
            return
        values = proposed.get("hyper_parameters", {}) if isinstance(proposed, Mapping) else {}
        if parameter_id is None:
            self._hyper_tuner.import_data([{"parameter": values, "value": metric}])
        else:
            self._hyper_tuner.receive_trial_result(parameter_id, values, metric)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The hyper-tuner is made anew (see :func:`make_hyper_tuner`) and learns from what is counted."""
        proposals = {str(number): proposed for number, proposed in state["proposals"].items()}
        results = {key: value for key, value in state["results"].items() if key in proposals}
        self._past = [{"parameter": proposals[key]["hyper_parameters"], "value": results[key]} for key in results]

    def pack(self, state: Mapping[str, Any]) -> bytes:
        return json.dumps(state).encode()

    def unpack(self, raw: bytes) -> dict[str, Any]:
        return json.loads(raw)


class _MultiTrial:
    """Each trial evaluates one architecture: the mutator's sampler lives here and learns from the results."""

    def __init__(self, tuner: DynamicWeightTuner) -> None:
        from .samplers import choices_of

        settings = tuner.settings
        self._settings = settings.to_dict()
        directory = tuner._code_directory or Path.cwd()
        self._settings["checkpoint"] = str((directory / str(settings.checkpoint)).resolve())
        self._sign = 1.0 if settings.optimize_mode == "maximize" else -1.0
        self._choices = choices_of(load_object(settings.space)(**settings.space_args))
        self.sampler = settings.sampler.build(seed=settings.seed)
        self.sampler.bind(self._choices)

    def propose(self, parameter_id: int, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        sample = dict(self.sampler.sample())
        return {"sample": sample}, {"mode": "multi_trial", "settings": self._settings, "sample": sample}

    def learn(self, proposed: Any, metric: float, parameter_id: int | None) -> None:
        sample = proposed.get("sample") if isinstance(proposed, Mapping) else None
        if not isinstance(sample, Mapping) or set(sample) != set(self._choices):
            _logger.warning("A result without an architecture of this space teaches nothing: %r", proposed)
            return
        self.sampler.observe(dict(sample), self._sign * metric)

    def state_dict(self) -> dict[str, Any]:
        return {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sampler.load_state_dict(state["sampler"])

    def pack(self, state: Mapping[str, Any]) -> bytes:
        import torch

        plain = {key: value for key, value in state.items() if key != "sampler"}
        buffer = io.BytesIO()
        torch.save({"tuner": json.dumps(plain), "sampler": state["sampler"]}, buffer)
        return buffer.getvalue()

    def unpack(self, raw: bytes) -> dict[str, Any]:
        import torch

        state = torch.load(io.BytesIO(raw), weights_only=True)
        return {**json.loads(state["tuner"]), "sampler": state["sampler"]}


def experiment_code_directory(arguments: list[str]) -> Path | None:
    """Return the experiment's ``trialCodeDirectory`` as NNI tells it to the tuner process, if this is one.

    NNI starts ``python -m nni --exp_params BASE64``, in the experiment's log directory; the constructor of a tuner
    gets its ``classArgs`` only.
    """
    if "--exp_params" not in arguments[:-1]:
        return None
    encoded = arguments[arguments.index("--exp_params") + 1]
    params = json.loads(base64.b64decode(encoded))
    service = params.get("trainingService")
    given = service.get("trialCodeDirectory") if isinstance(service, dict) else None
    given = given or params.get("trialCodeDirectory")
    return Path(given) if given else None


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


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _number_of(parameters: Any, value: Any) -> int | None:
    for one in (value, parameters):
        number = one.get("proposal") if isinstance(one, Mapping) else None
        if isinstance(number, int):
            return number
    return None


def _metric_of(value: Any) -> float | None:
    """NNI's results are numbers, or mappings whose ``default`` is the number."""
    if isinstance(value, Mapping):
        value = value.get("default")
    try:
        metric = float(value)
    except (TypeError, ValueError):
        return None
    return metric if math.isfinite(metric) else None


def _digest(parameters: Any, value: Any) -> str:
    content = json.dumps([parameters, value], sort_keys=True, default=str)
    return "digest " + hashlib.sha256(content.encode()).hexdigest()
