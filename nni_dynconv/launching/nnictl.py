"""``nnictl`` with its web server kept on this machine, which NNI itself has no setting for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import LaunchError
from ..settings import search_path

__all__ = ["LOOPBACK", "choose_port", "loopback_environment", "nnictl", "nnictl_program"]

LOOPBACK = "127.0.0.1"
PRELOAD = Path(__file__).with_name("loopback.js")


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


def loopback_environment() -> dict[str, str]:
    """Environment that keeps the web server of an ``nnictl`` on this machine, and has this Python first on the path."""
    options = os.environ.get("NODE_OPTIONS", "")
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy")), "localhost", LOOPBACK]))
    preload = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
    ours = {
        "PATH": search_path(),
        "NODE_OPTIONS": f'{options} --require "{preload}"'.strip(),
        "NNI_DYNCONV_NODE_OPTIONS": options,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # A thread of torch that waits must not spin: where cores are shared, that slows a step ten times and more.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }
    return {**os.environ, **ours}


def nnictl(arguments: Sequence[str]) -> int:
    """Run ``nnictl`` with its web server kept on this machine; return its status."""
    return subprocess.run([nnictl_program(), *arguments], env=loopback_environment()).returncode


def nnictl_program() -> str:
    """Return the ``nnictl`` beside this Python."""
    program = shutil.which("nnictl", path=search_path())
    if program is None:
        raise LaunchError("There is no `nnictl` beside this Python. Install NNI: `pip install nni`.")
    return program
