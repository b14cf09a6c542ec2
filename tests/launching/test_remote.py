"""NNI's `remote` training service, with an SSH server on the loopback that the tests start themselves."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from nni_runs import MARK, REPOSITORY, Lab, wait_until

from nni_dynconv import load
from nni_dynconv.errors import LaunchError
from nni_dynconv.launching import remote
from nni_dynconv.launching.nnictl import choose_port

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


class SshServer:
    """An SSH server on the loopback for this user: own port, own keys, and a home in the lab."""

    def __init__(self, lab: Lab):
        self.lab, self.port = lab, choose_port(None)
        self.folder = lab.folder / "ssh"
        self.folder.mkdir()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True)
        self.key = self.folder / "user"
        (self.folder / "config").write_text("\n".join(self._settings()) + "\n")

    def _settings(self):
        yield f"Port {self.port}"
        yield "ListenAddress 127.0.0.1"
        yield f"HostKey {self.folder / 'host'}"
        yield f"AuthorizedKeysFile {self.folder / 'user.pub'}"
        yield f"PidFile {self.folder / 'pid'}"
        yield "StrictModes no"
        yield "UsePAM no"
        yield "PermitRootLogin prohibit-password"
        yield "PasswordAuthentication no"
        yield f"Subsystem sftp internal-sftp -d {self.lab.folder / 'remote'}"
        yield "SetEnv " + " ".join(f'"{name}={value}"' for name, value in self._environment().items())

    def _environment(self):
        """Of the machine: a home of its own, no package index, NNI's node processes on the loopback, the lab's mark."""
        keys = ("PYTHONPATH", "OMP_NUM_THREADS", MARK)
        return {key: self.lab.environment[key] for key in keys} | {
            "HOME": str(self.lab.folder / "remote"),
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NODE_OPTIONS": f"--require {REPOSITORY / 'nni_dynconv' / 'launching' / 'loopback.js'}",
        }

    def __enter__(self):
        (self.lab.folder / "remote").mkdir()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # empty; root's sshd wants it, and the system's own service makes it
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "config")]
        self.log = (self.folder / "log").open("w")
        self.process = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, 10, "the SSH server")
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def section(self):
        """The YAML's ``trainingService``."""
        machine = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "sshKeyFile": str(self.key),
            "pythonPath": str(Path(sys.executable).parent),
        }
        return {"platform": "remote", "machineList": [machine]}


@pytest.fixture
def server(lab):
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's `sshd` and `ssh-keygen` (Debian: openssh-server)")
    with SshServer(lab) as server:
        yield server


def experiment(lab, server, class_args=None, **document):
    """Write an experiment whose code lies in a folder of its own, which NNI copies to the machine."""
    path = lab.write(class_args, trainingService=server.section(), nniManagerIp="127.0.0.1", **document)
    code = lab.folder / "code"
    code.mkdir()
    for name in ("stub_task.py", "stub_trial.py"):
        (lab.folder / name).rename(code / name)
    shutil.copy(Path(__file__).parents[1] / "toy_task.py", code)
    path.write_text(path.read_text().replace("trialCodeDirectory: .", "trialCodeDirectory: code"))
    return path


TOY = {"space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator", "evaluator_args": {"epochs": 1}}
MODES = {
    "one_shot": {"sampler": "gdas"},
    "multi_trial": {"sampler": "enas", "checkpoint": "shared"},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_both_modes_run_on_another_machine_to_their_end(mode, lab, server):
    """The shared checkpoint of multi-trial mode lies in the code directory, which NNI copies."""
    trials = 1 if mode == "one_shot" else 2
    command = "python3 -m nni_dynconv.trial"
    settings = {**TOY, **MODES[mode], "mode": mode}
    path = experiment(lab, server, settings, trialCommand=command, maxTrialNumber=trials)
    status, output, error = lab.run("launch", path, "--output", "best", timeout=300)
    assert status == 0, output + error
    assert f"{trials} succeeded, 0 failed" in output
    assert (
        load(lab.folder / "best").architecture
        == json.loads((lab.folder / "best/architecture.json").read_text())["architecture"]
    )
    (there,) = (lab.folder / "remote" / "nni-experiments").glob("*/environments/remote-worker1/trials")
    assert len(list(there.glob("*/network.safetensors"))) == trials
    assert not (lab.folder / "best" / "trial.log").exists()


@pytest.mark.slow
def test_a_trial_that_fails_on_another_machine_is_told_in_its_own_words(lab, server):
    path = experiment(lab, server)
    stub = lab.folder / "code" / "stub_trial.py"
    stub.write_text("raise SystemExit('no disk here')")
    status, output, error = lab.run("launch", path)
    assert status == 1
    assert "failed before it reported any metric" in error and "no disk here" in error and "Traceback" not in error
    assert "All of it: 127.0.0.1:~/nni-experiments/" in error


# Without a server


def test_a_launch_whose_machines_could_not_reach_the_manager_is_refused():
    document = {"trainingService": {"platform": "remote"}, "nniManagerIp": "10.0.0.1"}
    words = "`nniManagerIp` in x.yml is `10.0.0.1`, but `launch` keeps .* `ssh -N -R N:127.0.0.1:N USER@HOST`"
    with pytest.raises(LaunchError, match=words):
        remote.check_reachable(document, "x.yml")
    with pytest.raises(LaunchError, match="`nniManagerIp` in x.yml is `::1`"):  # where no manager listens
        remote.check_reachable({**document, "nniManagerIp": "::1"}, "x.yml")
    with pytest.raises(LaunchError, match="`nniManagerIp` in x.yml is `None`"):
        remote.check_reachable({"trainingService": {"platform": "remote"}}, "x.yml")
    remote.check_reachable({**document, "nniManagerIp": "127.0.0.1"}, "x.yml")
    remote.check_reachable({**document, "trainingService": {"platform": "local"}}, "x.yml")


PLACE = "127.0.0.1:~/nni-experiments/abc/environments/remote-worker2/trials/xyz"
MACHINES = [
    {"host": "127.0.0.1", "port": 2201, "user": "ann", "sshKeyFile": "key1"},
    {"host": "127.0.0.1", "port": 2202, "user": "bob"},
]


@pytest.fixture
def scp(tmp_path, monkeypatch):
    """A program of that name that writes its arguments into the folder that it is to make, or fails."""
    program = tmp_path / "bin" / "scp"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")

    def write(body):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    write('for last; do :; done; mkdir "$last"; echo "$@" > "$last/arguments"')
    return write


@pytest.mark.parametrize(("worker", "user"), [("1", "ann"), ("2", "bob"), ("7", "ann")])
def test_files_are_fetched_from_the_machine_of_the_worker(worker, user, scp, tmp_path):
    """NNI numbers a worker that it had to start again anew: then any machine of that address."""
    remote.fetch(PLACE.replace("worker2", f"worker{worker}"), MACHINES, tmp_path / "there")
    arguments = (tmp_path / "there" / "arguments").read_text()
    assert f" {user}@127.0.0.1:nni-experiments/abc/environments/remote-worker{worker}/trials/xyz " in arguments
    assert ("-P 2202" in arguments) == (user == "bob") and ("-i key1" in arguments) == (user == "ann")


def test_files_that_cannot_be_fetched_are_told_with_their_place(scp, tmp_path, monkeypatch):
    scp("echo 'Permission denied' >&2; exit 1")
    with pytest.raises(
        LaunchError, match="files lie in 127.0.0.1:~/nni-exp.* could not be fetched:\n  Permission denied"
    ):
        remote.fetch(PLACE, MACHINES, tmp_path / "there")
    with pytest.raises(LaunchError, match=r"(?s)has no host `10.0.0.9` .* it has `127.0.0.1`, `127.0.0.1`. Copy them"):
        remote.fetch(PLACE.replace("127.0.0.1", "10.0.0.9"), MACHINES, tmp_path / "there")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="There is no `scp` .* They lie in 127.0.0.1:~/nni-experiments"):
        remote.fetch(PLACE, MACHINES, tmp_path / "there")
