"""The NNI tuner behind ``tuner.name: DynamicWeightMutator``: proposes to trials, learns from them, saves itself.

What it proposes is in ``one_shot.py`` and ``multi_trial.py``.

NNI gives a tuner process ten seconds to connect, and constructs the tuner before that: neither this module nor the
constructor imports torch, Lightning or ``nni.nas``. They are loaded by ``update_search_space``, NNI's first call.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nni import NoMoreTrialError
from nni.tuner import Tuner

from ..errors import DynConvError
from ..files import PARTIAL
from ..nni_host import compat
from ..settings import RunSettings, check_class_args, check_end, check_search_space
from .metrics import number_in
from .multi_trial import MultiTrial
from .one_shot import OneShot
from .recovery import continue_parameter_ids, reported_results
from .state import STATE_FILE, is_there, read_state, write_state
from .time_given import TimeGiven

__all__ = ["DynamicWeightTuner"]

_logger = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _ends_dispatcher_on_error(method: _Method) -> _Method:
    """End the tuner process when a call of NNI's fails, so that NNI sees it.

    NNI 3.0 runs these calls in a thread of the dispatcher. When one raises, the thread ends, and the experiment stays
    ``RUNNING`` for ever without a trial. A closed connection is what NNI notices (status ``ERROR``).
    """

    @functools.wraps(method)
    def guarded(self: DynamicWeightTuner, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except NoMoreTrialError:  # of a hyper-tuner that has proposed all there is, which NNI understands
            raise
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
    in their places in ``settings``) and, where NNI's settings limit its time, ``seconds``, in multi-trial mode
    ``sample``. ``proposal`` is a number that is unique in the
    experiment's whole life. A trial that reports ``{"default": value, "proposal": number}`` as its final result is
    matched exactly; NNI's records pair concurrent trials with one another's parameters at times.

    Parameters
    ----------
    **class_args
        ``tuner.classArgs`` of the experiment's YAML; see :class:`nni_dynconv.settings.RunSettings`.

    Raises
    ------
    ConfigError
        In the words of ``nni-dynconv check``.
    """

    def __init__(self, **class_args: Any) -> None:
        super().__init__()
        if os.environ.get("SDK_PROCESS") == "dispatcher":
            compat.mend_resume()
            compat.say_if_late()
        self._code_directory = experiment_code_directory(sys.argv)
        self._trials = experiment_trials(sys.argv)
        self.settings: RunSettings = check_class_args(class_args, code_directory=self._code_directory)
        if self._code_directory is not None:  # elsewhere nobody says how many trials there will be
            check_end(self.settings, self._trials, "section `tuner.classArgs`")
        self._lock = threading.RLock()
        self._proposals: dict[int, dict[str, Any]] = {}  # number -> what the sampler or the hyper-tuner proposed
        self._results: dict[str, float] = {}  # number, or digest of a foreign result -> value: these are counted
        self._next_parameter_id = 0  # of NNI's ids, which start over on a resume unless we see to it
        self._restored: Path | None = None
        self._engine: OneShot | MultiTrial | None = None
        path = self._state_path()
        self._time = TimeGiven.of(_experiment_params(sys.argv), None if path is None else path.parents[1])

    # What NNI calls, in this order

    @_ends_dispatcher_on_error
    def load_checkpoint(self) -> None:
        """Look for the saved state; NNI calls this before the search space is known, and it is read then."""
        path = self._state_path()
        if path is not None and is_there(path):
            self._restored = path
            for partial in path.parent.glob(f"{path.name}.*{PARTIAL}"):  # of a process that was killed as it wrote
                partial.unlink()

    @_ends_dispatcher_on_error
    def update_search_space(self, search_space: Mapping[str, Any] | None) -> None:
        """Load what is heavy (once) and take the search space: ``{}``, or hyper-parameters in one-shot mode."""
        check_search_space(search_space, self.settings, "the experiment")
        with self._lock:
            if self._engine is None:
                self._start()
            if isinstance(self._engine, OneShot):
                self._engine.update_search_space(dict(search_space or {}), len(self._proposals))
            if self._restored is not None:
                self._restored = None
                self._learn_what_was_missed()

    @_ends_dispatcher_on_error
    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Make the next proposal."""
        with self._lock:
            number = len(self._proposals)
            self._anneal()
            proposed, parameters = self._engine_now().propose(parameter_id, number)
            self._proposals[number] = proposed
            self._next_parameter_id = max(self._next_parameter_id, parameter_id + 1)
            self._save()
        seconds = self._time.seconds() if self.settings.mode == "one_shot" else None
        return {"proposal": number, **parameters, **({} if seconds is None else {"seconds": seconds})}

    @_ends_dispatcher_on_error
    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Learn from a finished trial; results come in any order and on any thread."""
        self._learn(parameters, value, parameter_id)

    @_ends_dispatcher_on_error
    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Take note of a trial that has ended; one that failed or was stopped early may have brought no result."""
        with self._lock:
            if isinstance(self._engine, OneShot):
                self._engine.trial_end(parameter_id, success)

    @_ends_dispatcher_on_error
    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take results from NNI: after ``resume`` those that are counted already, and those that came in between."""
        for entry in data:
            self._learn(entry.get("parameter"), entry.get("value"), None)

    # How

    def _start(self) -> None:
        if self._code_directory is not None and str(self._code_directory) not in sys.path:
            sys.path.insert(0, str(self._code_directory))
        if self.settings.mode == "multi_trial":
            self._engine = MultiTrial(self.settings, self._code_directory or Path.cwd())
        else:
            self._engine = OneShot(self.settings)
        if self._restored is not None:
            self._restore(self._restored)

    def _engine_now(self) -> OneShot | MultiTrial:
        if self._engine is None:
            raise DynConvError("The tuner has no search space yet. Call `update_search_space` first.")
        return self._engine

    def _learn(self, parameters: Any, value: Any, parameter_id: int | None) -> None:
        number = _number_of(parameters, value)
        metric = number_in(value)
        if metric is None or not math.isfinite(metric):
            _logger.warning("Result of proposal %s is not a finite number and teaches nothing: %r", number, value)
            return
        objection = self._engine_now().objection(metric)
        if objection is not None:
            _logger.warning("Result of proposal %s %s, and teaches nothing: %r", number, objection, value)
            return
        with self._lock:
            if number is not None and number not in self._proposals:
                _logger.warning("A result is refused: nothing was proposed under the number %s: %r", number, value)
                return
            key = str(number) if number is not None else _digest(parameters, value)
            proposed = self._proposals.get(number, parameters) if number is not None else parameters
            if key in self._results:
                _logger.info("Result of proposal %s is counted already", number)
                return
            self._anneal()
            self._engine_now().learn(proposed, metric, parameter_id)
            self._results[key] = metric
            self._save()

    def _anneal(self) -> None:
        """Tell the sampler of multi-trial mode how far the search is.

        What counts are the results so far, which the saved state has, so that a resume goes on where it was; data that
        a user imported are none of this experiment's trials.
        """
        if isinstance(self._engine, MultiTrial) and self._trials is not None:
            counted = sum(key.isdecimal() for key in self._results)
            self._engine.anneal(min(counted / max(self._trials - 1, 1), 1.0))

    # State

    def _state_path(self) -> Path | None:
        folder = self.get_checkpoint_path()
        return Path(folder) / STATE_FILE if folder else None

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on: proposals, counted results, and the sampler's own state."""
        with self._lock:
            state = {"mode": self.settings.mode, "proposals": self._proposals, "results": self._results}
            return {**state, "next_parameter_id": self._next_parameter_id, **self._engine_now().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        with self._lock:
            self._proposals = {int(number): one for number, one in state["proposals"].items()}
            self._results = dict(state["results"])
            self._next_parameter_id = state.get("next_parameter_id", 0)
            self._engine_now().load_state_dict(state)

    def save_checkpoint(self) -> None:
        """Write the state, at once or not at all. NNI never calls this, so each proposal and result does."""
        path = self._state_path()
        if path is not None:
            with self._lock:
                write_state(path, self._engine_now().pack(self.state_dict()))

    _save = save_checkpoint

    def _restore(self, path: Path) -> None:
        self.load_state_dict(read_state(path, self._engine_now().unpack, _logger.warning))
        _logger.info("Restored %d proposals and %d results", len(self._proposals), len(self._results))
        continue_parameter_ids(self._next_parameter_id)

    def _learn_what_was_missed(self) -> None:
        """Learn the results that trials reported while no tuner lived, whatever became of those trials then."""
        path = self._state_path()
        for value in reported_results(path.parents[1]) if path is not None else ():
            if value["proposal"] in self._proposals and str(value["proposal"]) not in self._results:
                _logger.info("Learning a result that came while no tuner lived: %r", value)
                self._learn(None, value, None)


def experiment_code_directory(arguments: list[str]) -> Path | None:
    """Return the experiment's ``trialCodeDirectory`` as NNI tells it to the tuner process, if this is one.

    NNI starts ``python -m nni --exp_params BASE64``, in the experiment's log directory; the constructor of a tuner
    gets its ``classArgs`` only.
    """
    params = _experiment_params(arguments)
    service = params.get("trainingService")
    given = service.get("trialCodeDirectory") if isinstance(service, dict) else None
    given = given or params.get("trialCodeDirectory")
    return Path(given) if given else None


def experiment_trials(arguments: list[str]) -> int | None:
    """Return the experiment's ``maxTrialNumber``, if it has one, as NNI tells it to the tuner process at its start."""
    return _experiment_params(arguments).get("maxTrialNumber")


def _experiment_params(arguments: list[str]) -> dict[str, Any]:
    if "--exp_params" not in arguments[:-1]:
        return {}
    return json.loads(base64.b64decode(arguments[arguments.index("--exp_params") + 1]))


def _number_of(parameters: Any, value: Any) -> int | None:
    for one in (value, parameters):
        number = one.get("proposal") if isinstance(one, Mapping) else None
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    return None


def _digest(parameters: Any, value: Any) -> str:
    content = json.dumps([parameters, value], sort_keys=True, default=str)
    return "digest " + hashlib.sha256(content.encode()).hexdigest()
