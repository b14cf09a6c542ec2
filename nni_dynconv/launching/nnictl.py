"""``nnictl`` with its web server kept on this machine, and with what ``nni_host`` mends of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path

from ..errors import LaunchError
from ..nni_host import MANAGER
from ..settings import search_path

__all__ = ["LOOPBACK", "check_node", "choose_port", "loopback_environment", "nnictl", "nnictl_command"]

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
    preloads = [str(one).replace("\\", "\\\\").replace('"', '\\"') for one in (MANAGER, PRELOAD)]
    ours = {
        "PATH": search_path(),
        "NODE_OPTIONS": " ".join([options, *(f'--require "{one}"' for one in preloads)]).strip(),
        "NNI_DYNCONV_NODE_OPTIONS": options,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # A thread of torch that waits must not spin: where cores are shared, that slows a step ten times and more.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }
    return {**os.environ, **ours}


def nnictl(arguments: Sequence[str]) -> int:
    """Run ``nnictl`` with its web server kept on this machine; return its status."""
    return subprocess.run(nnictl_command(arguments), env=loopback_environment()).returncode


def nnictl_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs ``nnictl`` of this Python's NNI."""
    return [sys.executable, "-m", "nni_dynconv.nni_host.nnictl", *arguments]


def check_node() -> None:
    """Check that NNI is whole: its manager is a program for node, which comes with it.

    Raises
    ------
    LaunchError
        There is no NNI, or it has no node.
    """
    found = util.find_spec("nni_node")
    folder = None if found is None or found.origin is None else Path(found.origin).parent
    node = None if folder is None else folder / ("node.exe" if os.name == "nt" else "node")
    if node is None or not os.access(node, os.X_OK):
        where = "" if node is None else f" at {node}"
        raise LaunchError(
            f"NNI has no node{where} that could run its manager. Install it anew: "
            f"`pip install --force-reinstall --no-deps nni`."
        )
