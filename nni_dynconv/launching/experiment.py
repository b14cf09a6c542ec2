"""One running NNI experiment: start it on this machine only, ask it, read its logs, stop all of its processes.

What is done with the answers (progress, giving up, results) is in ``launch.py``.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

from ..errors import LaunchError
from ..experiments import time_given
from .nni_logs import error_in_log, last_lines, without_colours, without_noise
from .nnictl import LOOPBACK, loopback_environment, nnictl_command
from .running.patience import NotStartedError, Patience, lives
from .running.watched import MARK, Watched, end_all

__all__ = ["LocalExperiment"]

ENDING = 20.0
"""Seconds that a trial has to write its checkpoint, once it is told to end."""
NOTICING = 10.0
"""Seconds that NNI and `launch` may take to notice that a trial has ended."""


class LocalExperiment:
    """An NNI experiment of this machine, with its manager on the loopback address.

    Parameters
    ----------
    port
        A free port for NNI's web server.

    Notes
    -----
    NNI's manager listens on all interfaces, without authentication. A preload of its node process gives ``listen``
    the loopback address; NNI itself has no such setting.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.id: str | None = None
        self.folder: Path | None = None
        self.machines: list[dict[str, Any]] = []  # of NNI's `remote` training service
        self._seen: dict[str, psutil.Process] = {}
        self._mark = uuid.uuid4().hex
        self._watched: Watched | None = None
        self._until = math.inf
        self._log_start: dict[Path, int] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Environment of what we start: our mark, this Python first on the path, NNI's server on the loopback.

        What has a deadline is told it, so that it ends by itself before.
        """
        until = {} if math.isinf(self._until) else {time_given.UNTIL: str(self._until)}
        return {**loopback_environment(), MARK: self._mark, **until}

    # Start

    def create(self, config: Path, deadline: float = math.inf) -> None:
        """``nnictl create``: returns when NNI's server answers; the tuner has not connected then."""
        self._start(["create", "--config", str(config)], deadline)

    def resume(self, experiment_id: str, deadline: float = math.inf) -> None:
        """``nnictl resume``: go on with a stopped experiment."""
        self._remember_logs(experiment_id)
        self._start(["resume", experiment_id], deadline)

    def _start(self, arguments: list[str], deadline: float) -> None:
        self._until = time.time() + deadline - time.monotonic() - NOTICING
        patience = Patience(lambda: self.manager() or self._find(_is_nnictl), deadline)
        code, output = self._nnictl([*arguments, "--port", str(self.port)], patience)
        found = re.search(r"Experiment ID: (\w+)", output)
        self.id = found.group(1) if found else (arguments[1] if arguments[0] == "resume" else None)
        if code != 0 or self.id is None:
            raise NotStartedError(f"`nnictl {arguments[0]}` failed:\n{last_lines(without_noise(output), 15)}")
        profile = self.get("experiment")
        if profile["id"] != self.id:
            raise NotStartedError(f"Port {self.port} was taken meanwhile, by experiment {profile['id']}.")
        self.folder = Path(profile["logDir"])
        self._watched = Watched(self.folder)
        self._watched.begin(self._mark)
        service = profile["params"]["trainingService"]
        self.machines = service.get("machineList", []) if isinstance(service, dict) else []

    def _remember_logs(self, experiment_id: str) -> None:
        """A resumed experiment appends to its logs: errors of the earlier run are not this one's."""
        from nni.tools.nnictl.config_utils import Experiments

        known = Experiments().get_all_experiments().get(experiment_id)
        if known is not None:
            for path in Path(known["logDir"], experiment_id, "log").glob("*.log"):
                self._log_start[path] = path.stat().st_size

    def _nnictl(self, arguments: list[str], patience: Patience) -> tuple[int, str]:
        """Run ``nnictl`` to its end, and return its status and what it said."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                nnictl_command(arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            try:
                while process.poll() is None:
                    patience.check(f"`nnictl {arguments[0]}` did not end")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1.0)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            return process.returncode, without_colours(output.read().decode("utf-8", "replace"))

    # Ask

    def get(self, path: str, timeout: float = 10.0) -> Any:
        """Ask NNI's REST interface, past any proxy.

        Raises
        ------
        LaunchError
            NNI's manager does not answer.
        """
        return self._get(path, timeout, requests.Response.json)

    def trial_file(self, trial: str, name: str) -> str:
        """Ask NNI for ``stderr``, ``stdout`` or ``trial.log`` of a trial, wherever that runs."""
        return self._get(f"trial-file/{trial}/{name}", 30.0, lambda answer: answer.content.decode("utf-8", "replace"))

    def _get(self, path: str, timeout: float, read: Callable[[requests.Response], Any]) -> Any:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between this machine and itself
            try:
                answer = session.get(f"http://{LOOPBACK}:{self.port}/api/v1/nni/{path}", timeout=timeout)
                answer.raise_for_status()
                return read(answer)
            except requests.RequestException as error:
                raise LaunchError(f"NNI's manager does not answer on port {self.port}: {_cause(error)}") from None

    def log(self, name: str) -> str:
        """What a log file of the experiment holds, of this run."""
        path = (self.folder or Path()) / "log" / name
        if self.folder is None or not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(self._log_start.get(path, 0))
            return file.read().decode("utf-8", "replace")

    def tuner_error(self) -> str | None:
        """The error with which the tuner's process (NNI's dispatcher) ended or is stuck, if it did."""
        return error_in_log(self.log("dispatcher.log"))

    def tuner_connected(self) -> bool:
        """Whether the tuner has connected; NNI's status says ``RUNNING`` before that."""
        return "Dispatcher started" in self.log("dispatcher.log") or bool(self.get("trial-jobs"))

    def tuner(self) -> psutil.Process | None:
        """The tuner's process, as far as it can be seen."""
        return self._find(_is_tuner)

    def manager(self) -> psutil.Process | None:
        """The process of NNI's manager, as far as it can be seen."""
        return self._find(_is_manager)

    def _find(self, what: Callable[[list[str]], bool]) -> psutil.Process | None:
        known = self._seen.get(what.__name__)
        if known is None or not lives(known):
            found = next((one for one in self.processes() if what(_words(one))), None)
            if found is None:
                return None
            self._seen[what.__name__] = found
        return self._seen[what.__name__]

    def tuner_lives(self) -> bool:
        """Whether the tuner's process lives, as far as can be seen; NNI itself takes half a minute to miss it.

        One that was never seen is not missing: not every system shows processes.
        """
        return self.tuner() is not None or _is_tuner.__name__ not in self._seen

    def manager_lives(self) -> bool:
        """Whether NNI's manager lives, as far as can be seen."""
        return self.manager() is not None or _is_manager.__name__ not in self._seen

    # Stop

    def stop(self, over: bool = True) -> None:
        """Stop the experiment, and whatever of it is left by process id.

        Parameters
        ----------
        over
            Whether it is over: then NNI's manager ends it, as by ``nnictl stop``, and runs no trial again. One that is
            to go on loses its manager first, in whose records its trials then still run: they write checkpoints.
        """
        manager = self.manager()
        if manager is not None:
            with contextlib.suppress(psutil.Error):
                if over or self.machines:
                    manager.terminate()
                    manager.wait(ENDING)
                else:
                    manager.kill()
        end_all(self.processes, 3.0 if over else ENDING)
        if self._watched is not None:
            self._watched.end()

    def processes(self) -> list[psutil.Process]:
        """Living processes of this experiment: NNI's manager, the tuner, trials and their children."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False


def _cause(error: BaseException) -> BaseException:
    """The first of errors that followed from each other: `requests` wraps the reason in three of its own."""
    return error if error.__context__ is None else _cause(error.__context__)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_tuner(words: list[str]) -> bool:
    return "--exp_params" in words


def _is_manager(words: list[str]) -> bool:
    return any(one.endswith("main.js") for one in words) and "--experiment-id" in words


def _is_nnictl(words: list[str]) -> bool:
    return "nni_dynconv.nni_host.nnictl" in words
