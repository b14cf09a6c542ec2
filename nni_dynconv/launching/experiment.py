"""One running NNI experiment: start it on this machine only, ask it, read its logs, stop all of its processes.

What is done with the answers (progress, giving up, results) is in ``launch.py``.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

from ..errors import LaunchError
from .nni_logs import error_in_log, last_lines, without_colours, without_noise
from .nnictl import LOOPBACK, loopback_environment, nnictl_program

__all__ = ["LocalExperiment"]

MARK = "NNI_DYNCONV_LAUNCH"
"""Environment variable that every process of one launch inherits: it tells ours from others'."""

TOO_SLOW = "JSONDecodeError"
"""What ``nnictl`` ends with on a busy machine: it asks NNI's manager four times in four seconds, and is shown a page of
NNI's until that is ready."""
AGAIN = 2
"""How often it is then started anew."""


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
        self._tuner: psutil.Process | None = None
        self._mark = uuid.uuid4().hex
        self._log_start: dict[Path, int] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Environment of what we start: our mark, this Python first on the path, NNI's server on the loopback."""
        return {**loopback_environment(), MARK: self._mark}

    # Start

    def create(self, config: Path) -> None:
        """``nnictl create``: returns when NNI's server answers; the tuner has not connected then."""
        self._start(["create", "--config", str(config)])

    def resume(self, experiment_id: str) -> None:
        """``nnictl resume``: go on with a stopped experiment."""
        self._start(["resume", experiment_id])

    def _start(self, arguments: list[str]) -> None:
        if arguments[0] == "resume":
            self._remember_logs(arguments[1])
        code, output = self._nnictl([*arguments, "--port", str(self.port)], timeout=60)
        for _ in range(AGAIN):
            if code == 0 or TOO_SLOW not in output:
                break
            self._end_processes()
            code, output = self._nnictl([*arguments, "--port", str(self.port)], timeout=60)
        found = re.search(r"Experiment ID: (\w+)", output)
        self.id = found.group(1) if found else (arguments[1] if arguments[0] == "resume" else None)
        if code != 0 or self.id is None:
            raise LaunchError(f"`nnictl {arguments[0]}` failed:\n{last_lines(without_noise(output), 15)}")
        profile = self.get("experiment")
        self.folder = Path(profile["logDir"])
        service = profile["params"]["trainingService"]
        self.machines = service.get("machineList", []) if isinstance(service, dict) else []

    def _remember_logs(self, experiment_id: str) -> None:
        """A resumed experiment appends to its logs: errors of the earlier run are not this one's."""
        from nni.tools.nnictl.config_utils import Experiments

        known = Experiments().get_all_experiments().get(experiment_id)
        if known is not None:
            for path in Path(known["logDir"], experiment_id, "log").glob("*.log"):
                self._log_start[path] = path.stat().st_size

    def _nnictl(self, arguments: list[str], timeout: float) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [nnictl_program(), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        except subprocess.TimeoutExpired as expired:
            return 1, f"{_text(expired.stdout)}\n`nnictl {arguments[0]}` did not end in {timeout:.0f} s."
        return done.returncode, without_colours(done.stdout)

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

    def tuner_lives(self) -> bool:
        """Whether the tuner's process lives, as far as can be seen; NNI itself takes half a minute to miss it."""
        if self._tuner is None or not _lives(self._tuner):
            found = next(filter(_is_tuner, self.processes()), None)
            if found is None:
                return self._tuner is None  # one that was never seen is not missing: not every system shows processes
            self._tuner = found
        return True

    # Stop

    def stop(self) -> None:
        """Stop the experiment as ``nnictl stop`` does, and whatever of it is left then by process id."""
        try:
            if self.id is not None and self.processes():
                self._nnictl(["stop", self.id], timeout=15)
        finally:
            self._end_processes()

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

    def _end_processes(self) -> None:
        for end, patience in (("terminate", 3.0), ("kill", 3.0)):
            left = self.processes()
            for process in left:
                with contextlib.suppress(psutil.Error):
                    getattr(process, end)()
            until = time.monotonic() + patience
            while left and time.monotonic() < until:
                time.sleep(0.1)
                left = self.processes()
            if not left:
                return


def _cause(error: BaseException) -> BaseException:
    """The first of errors that followed from each other: `requests` wraps the reason in three of its own."""
    return error if error.__context__ is None else _cause(error.__context__)


def _is_tuner(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "--exp_params" in words


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
