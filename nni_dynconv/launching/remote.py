"""Machines of NNI's ``remote`` training service: how they reach NNI's manager, and the files of their trials."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LaunchError

__all__ = ["check_reachable", "fetch", "is_remote"]

LOOPBACK_NAMES = ("127.0.0.1", "localhost")
WORKER = re.compile(r"/environments/remote-worker(\d+)/")


def is_remote(place: str) -> bool:
    """Whether a trial's ``logPath`` is NNI's ``HOST:~/PATH`` of another machine.

    >>> is_remote("10.0.0.2:~/nni-experiments/abc/environments/remote-worker1/trials/x"), is_remote("runs/x")
    (True, False)
    """
    return ":~/" in place


def check_reachable(document: Mapping[str, Any], path: str | Path) -> None:
    """Check that the machines of a YAML can reach a manager that listens on the loopback.

    Raises
    ------
    LaunchError
        NNI would tell the machines another address.
    """
    service = document.get("trainingService")
    if not isinstance(service, Mapping) or service.get("platform") != "remote":
        return
    told = document.get("nniManagerIp")
    if told not in LOOPBACK_NAMES:
        raise LaunchError(
            f"`nniManagerIp` in {path} is `{told}`, but `launch` keeps NNI's manager, which has no authentication, on "
            f"127.0.0.1. Write `nniManagerIp: 127.0.0.1`, choose a port with `--port N`, and let each machine reach it "
            f"through `ssh -N -R N:127.0.0.1:N USER@HOST`. Or start it with plain `nnictl create`."
        )


def fetch(place: str, machines: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Copy the files of a remote trial into a new folder, by ``scp``.

    Parameters
    ----------
    place
        The trial's ``logPath``.
    machines
        ``trainingService.machineList`` of the experiment, as NNI's manager has it.

    Raises
    ------
    LaunchError
        They cannot be copied.
    """
    program = shutil.which("scp")
    if program is None:
        raise LaunchError(f"There is no `scp` to fetch the best trial's files with. They lie in {place}")
    host, _, path = place.partition(":~/")
    machine = _machine_of(place, host, machines)
    command = [program, "-q", "-r", "-B", *_options(machine), f"{machine['user']}@{host}:{path}", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise LaunchError(f"The best trial's files lie in {place} and could not be fetched:\n  {done.stderr.strip()}")


def _machine_of(place: str, host: str, machines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """NNI numbers its workers as the machines are listed; one that it had to start again has a higher number."""
    found = WORKER.search(place)
    number = int(found.group(1)) if found else 0
    if 0 < number <= len(machines) and machines[number - 1]["host"] == host:
        return machines[number - 1]
    for machine in machines:
        if machine["host"] == host:
            return machine
    known = ", ".join(f"`{machine['host']}`" for machine in machines) or "none"
    raise LaunchError(
        f"The best trial's files lie in {place}, but `machineList` has no host `{host}` to fetch them from; it has "
        f"{known}. Copy them with `scp -r`."
    )


def _options(machine: Mapping[str, Any]) -> list[str]:
    """NNI itself does not look at the machine's key."""
    unchecked = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={os.devnull}", "-o", "LogLevel=ERROR"]
    key = ["-i", str(machine["sshKeyFile"])] if machine.get("sshKeyFile") else []
    return ["-P", str(machine.get("port", 22)), *key, *unchecked]
