"""One running NNI experiment: start it on this machine only, ask it, read its logs, stop all of its processes.

What is done with the answers (progress, giving up, results) is in ``launch.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import psutil

from .config import search_path
from .errors import LaunchError

__all__ = ["LocalExperiment", "choose_port", "error_in_log"]

LOOPBACK = "127.0.0.1"
PRELOAD = Path(__file__).with_name("loopback.js")
MARK = "NNI_DYNCONV_LAUNCH"
"""Environment variable that every process of one launch inherits: it tells ours from others'."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (\w+) \([^)]*\)+ ?(.*)$")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning)\b")


def choose_port(wanted: int | None) -> int:
    """Return a free port, or the wanted one if it is free.

    Raises
    ------
    LaunchError
        The wanted port is taken.
    """
    for host in (LOOPBACK, "0.0.0.0"):  # noqa: S104 (bound for a moment and never listened on, to see whether it is free)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, wanted or 0))
            except (OSError, OverflowError) as error:
                raise LaunchError(
                    f"Port {wanted} is not free ({getattr(error, 'strerror', None) or error}). Stop what uses it, ask "
                    f"for another one with `--port N`, or leave `--port` out: a free one is chosen then."
                ) from None
            if wanted is None:
                return int(probe.getsockname()[1])
    return int(wanted)  # type: ignore[arg-type]


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
        self._mark = uuid.uuid4().hex
        self._log_start: dict[Path, int] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Environment of what we start: our mark, this Python first on the path, NNI's server on the loopback."""
        options = os.environ.get("NODE_OPTIONS", "")
        no_proxy = ",".join(
            filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy")), "localhost", LOOPBACK])
        )
        preload = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
        ours = {
            "PATH": search_path(),
            "NODE_OPTIONS": f'{options} --require "{preload}"'.strip(),
            "NNI_DYNCONV_NODE_OPTIONS": options,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            # A thread of torch that waits must not spin: where cores are shared, that slows a step ten times and more.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
            MARK: self._mark,
        }
        return {**os.environ, **ours}

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
        found = re.search(r"Experiment ID: (\w+)", output)
        self.id = found.group(1) if found else (arguments[1] if arguments[0] == "resume" else None)
        if code != 0 or self.id is None:
            raise LaunchError(f"`nnictl {arguments[0]}` failed:\n{_last_lines(_without_noise(output), 15)}")
        self.folder = Path(self.get("experiment")["logDir"])

    def _remember_logs(self, experiment_id: str) -> None:
        """A resumed experiment appends to its logs: errors of the earlier run are not this one's."""
        from nni.tools.nnictl.config_utils import Experiments

        known = Experiments().get_all_experiments().get(experiment_id)
        if known is not None:
            for path in Path(known["logDir"], experiment_id, "log").glob("*.log"):
                self._log_start[path] = path.stat().st_size

    def _nnictl(self, arguments: list[str], timeout: float) -> tuple[int, str]:
        program = shutil.which("nnictl", path=search_path())
        if program is None:
            raise LaunchError("There is no `nnictl` beside this Python. Install NNI: `pip install nni`.")
        try:
            done = subprocess.run(
                [program, *arguments],
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
        return done.returncode, _ANSI.sub("", done.stdout)

    # Ask

    def get(self, path: str, timeout: float = 10.0) -> Any:
        """Ask NNI's REST interface, past any proxy.

        Raises
        ------
        LaunchError
            NNI's manager does not answer.
        """
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{LOOPBACK}:{self.port}/api/v1/nni/{path}", timeout=timeout) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise LaunchError(f"NNI's manager does not answer on port {self.port}: {error}") from None

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


def error_in_log(text: str) -> str | None:
    """Return the last error that one of NNI's Python logs tells, without its traceback.

    >>> error_in_log('''[2026-01-01 00:00:00] ERROR (nni.main/MainThread) wrong
    ... Traceback (most recent call last):
    ...   File "x.py", line 1, in f
    ... ValueError: wrong''')
    'ValueError: wrong'
    """
    block: list[str] | None = None
    last: list[str] | None = None
    for line in text.splitlines():
        head = _LOG_LINE.match(line)
        if head:
            block = [head.group(2)] if head.group(1) in ("ERROR", "CRITICAL") else None
            last = block if block is not None else last
        elif block is not None:
            block.append(line)
    if last is None:
        return None
    starts = [index for index, line in enumerate(last) if _EXCEPTION.match(line)]
    if any(line.startswith("Traceback") for line in last) and starts:
        last = last[starts[-1] :]
    return "\n".join(last).strip().removeprefix("nni_dynconv.errors.")


def _without_noise(output: str) -> str:
    noise = ("pkg_resources", "Web portal URLs")
    return "\n".join(line for line in _ANSI.sub("", output).splitlines() if not any(one in line for one in noise))


def _last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
