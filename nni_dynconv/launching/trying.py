"""An experiment tried in a process of its own before it is started: what fails there is told, and nothing else begins.

What is tried is in ``experiments/trying``.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ..errors import LaunchError
from ..phases import Line, State, read_state
from ..settings import load_yaml
from .nni_logs import tail
from .nnictl import loopback_environment

__all__ = ["OUT_OF_TIME", "try_out", "why_not"]

OUT_OF_TIME = "The time given by `--timeout` is over; everything that was started is stopped."
VERDICT = "verdict.json"


def why_not(config: str | Path) -> str | None:
    """Return why an experiment cannot be tried here, as a sentence, or ``None``."""
    document = load_yaml(config)
    service = document.get("trainingService") or {}
    command = service.get("trialCommand") or document.get("trialCommand") or ""
    if service.get("platform") != "local":
        return f"its trials run on other machines (`platform: {service.get('platform')}`)."
    if "nni_dynconv.trial" not in command:
        return f"its trials run a command of your own (`{command}`)."
    return None


def try_out(
    config: str | Path,
    say: Callable[[str], None],
    deadline: float = math.inf,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Try an experiment: a batch goes through all that a trial does.

    Parameters
    ----------
    config
        The experiment's YAML, which is checked already.
    say
        Receives what was measured, and where the try is.
    deadline
        Of :func:`time.monotonic`.
    environment
        Of the process.

    Raises
    ------
    LaunchError
        Something failed, in words, the process died, or the time is over.
    """
    with tempfile.TemporaryDirectory(prefix="nni_dynconv_try_") as place:
        folder = Path(place)
        command = [sys.executable, "-m", "nni_dynconv.experiments.trying", str(config), place]
        environment = loopback_environment() if environment is None else environment
        with (
            (folder / "output").open("wb") as output,
            Line(say) as line,
            _running(command, output, environment) as process,
        ):
            line.show(State("starting"), "trying")
            last = _wait(process, folder, line, deadline)
        verdict = _verdict(folder, process.returncode, last)
    if "error" in verdict:
        raise LaunchError(f"The experiment was tried, and fails.\n{verdict['error']}")
    for one in verdict["measured"]:
        say(one)


def _wait(process: subprocess.Popen[bytes], folder: Path, line: Line, deadline: float) -> str:
    """Wait for the end, and return the last phase that was seen."""
    phase = "starting"
    while process.poll() is None:
        state = read_state(folder)
        if state is not None:
            phase = state.phase
            line.show(state, "trying")
        if time.monotonic() > deadline:
            raise LaunchError(OUT_OF_TIME)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return phase


@contextmanager
def _running(command: list[str], output: Any, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process; it and its children are gone after the block."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=dict(environment), **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.kill()
            process.wait()


def _verdict(folder: Path, status: int, phase: str) -> dict[str, Any]:
    try:
        return json.loads((folder / VERDICT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    memory = " The system does that where memory runs out." if status == -signal.SIGKILL else ""
    return {"error": f"Its process ended {how}, at: {phase}.{memory} Its last lines:\n{tail(output)}"}
