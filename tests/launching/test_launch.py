"""`nni-dynconv launch` with real NNI: it ends in words, keeps to this machine, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import socket

import psutil
import pytest
from nni_runs import ask, wait_until

from nni_dynconv.errors import ConfigError, LaunchError
from nni_dynconv.launching import experiment
from nni_dynconv.launching.launch import _check_interpreter, launch
from nni_dynconv.launching.nni_logs import error_in_log
from nni_dynconv.launching.nnictl import choose_port

# Must end in words, soon, with nothing left behind


@pytest.mark.nnictl
def test_settings_that_check_refuses_end_a_launch_before_it_starts(lab):
    status, output, error = lab.run("launch", lab.write({"controler": "chunked"}))
    assert status == 2
    assert "Unknown key `controler`" in error and "Did you mean `controller`?" in error
    assert "Traceback" not in error and not lab.processes()
    assert lab.run("check", lab.folder / "experiment.yml")[2] == error


@pytest.mark.nnictl
def test_a_trial_that_crashes_at_once_ends_a_launch(lab):
    status, output, error = lab.run("launch", lab.write(stub={"failing": (0, 1)}))
    assert status == 1
    assert "failed before it reported any metric" in error and "trial of proposal 0 fails on purpose" in error
    assert "Traceback" not in error and not lab.processes()


@pytest.mark.nnictl
def test_a_port_that_is_taken_ends_a_launch(lab):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        status, output, error = lab.run("launch", lab.write(), "--port", port)
    assert status == 1
    assert f"Port {port} is not free" in error and "--port" in error
    assert "Traceback" not in error and not lab.processes()


@pytest.mark.nnictl
def test_a_tuner_that_fails_after_it_connected_ends_a_launch_with_its_own_error(lab):
    (lab.folder / "stub.py").write_text("def __getattr__(name): raise RuntimeError('no space today')\n")
    (lab.folder / "shared.pt").touch()
    named = {"mode": "multi_trial", "sampler": "random", "space": "stub:Space", "checkpoint": "shared.pt"}
    status, output, error = lab.run("launch", lab.write(named))
    assert status == 1
    assert "The tuner ended with an error" in error and "RuntimeError: no space today" in error


def test_a_python_in_a_path_with_a_space_is_refused_in_words():
    """NNI used to say "Tuner did not connect"."""
    with pytest.raises(
        LaunchError, match="lies at `/my clone/bin/python`, and NNI 3.0 cannot start a tuner from a path with a space"
    ):
        _check_interpreter("/my clone/bin/python")


# A run that goes well


@pytest.mark.nnictl
def test_a_launch_runs_to_the_end_on_the_loopback_and_fetches_the_best_trial(lab):
    process = lab.start("launch", lab.write(maxTrialNumber=3, stub={"failing": (1,), "pause": 0.5}), "--output", "best")
    listening = wait_until(lambda: _listening(lab), 60, "NNI's server")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert listening == {"127.0.0.1"}
    for words in ("RUNNING", "trial 0", "epoch ", "FAILED", "2 succeeded, 1 failed", "Files in best: "):
        assert words in output
    summary = json.loads((lab.folder / "best" / "summary.json").read_text())
    assert summary["proposal"] == 2 and summary["experiment_id"] in output and summary["seconds"] > 0
    assert json.loads((lab.folder / "best" / "experiment.json").read_text())["result"] == 2.0
    assert not lab.processes()


def _listening(lab):
    addresses = set()
    for process in lab.processes():
        try:
            found = process.net_connections("tcp")
        except psutil.Error:
            continue
        addresses |= {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}
    return addresses


@pytest.mark.nnictl
def test_ctrl_c_stops_everything(lab):
    process = lab.start("launch", lab.write(stub={"epochs": 100, "pause": 1}))
    wait_until(lambda: any("stub_trial.py" in " ".join(one.cmdline()) for one in lab.processes()), 60, "a trial")
    os.kill(process.pid, signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in error and "Traceback" not in error
    assert not lab.processes()


@pytest.mark.nnictl
def test_a_launch_gives_up_when_its_time_is_over(lab):
    status, output, error = lab.run("launch", lab.write(stub={"epochs": 100, "pause": 1}), "--timeout", 12)
    assert status == 1 and "`--timeout` is over" in error
    assert not lab.processes()


# Plain nnictl


@pytest.mark.nnictl
def test_plain_nnictl_says_the_same_words_in_the_dispatchers_log(lab):
    path, port = lab.write({"controler": "chunked"}), choose_port(None)
    lab.run("register")
    lab.nnictl("create", "--config", path, "--port", port)
    try:
        wait_until(lambda: ask(port, "check-status")["status"] == "ERROR", 30, "NNI's ERROR")
        log = (lab.folder / "experiments" / "_latest" / "log" / "dispatcher.log").read_text()
        words = "Unknown key `controler` in section `tuner.classArgs`. Did you mean `controller`?"
        assert error_in_log(log) == f"ConfigError: {words}"
    finally:
        lab.nnictl("stop", ask(port, "experiment")["id"])


# Without NNI


def test_files_that_no_launch_wrote_are_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    monkeypatch.setattr("nni_dynconv.launching.launch.check_config", lambda *_, **__: None)
    monkeypatch.setattr("nni_dynconv.launching.launch.load_yaml", lambda *_: {})
    with pytest.raises(LaunchError, match="holds files that no launch wrote"):
        launch("x.yml", output=tmp_path / "out")


def test_a_free_port_is_chosen_and_given_back():
    with socket.socket() as server:
        server.bind(("127.0.0.1", choose_port(None)))
    with pytest.raises(LaunchError, match="Port 70000 is not free"):
        choose_port(70000)


def test_errors_are_read_out_of_nnis_logs():
    head = "[2026-01-01 00:00:00] {} (nni.main/MainThread) {}\n"
    assert error_in_log(head.format("INFO", "fine")) is None
    assert error_in_log(head.format("ERROR", "in a line") + head.format("INFO", "fine")) == "in a line"
    trace = "Traceback (most recent call last):\n  File 'x'\nnni_dynconv.errors.ShapeError: axis\n  x: 3\n"
    assert error_in_log(head.format("ERROR", "axis") + trace) == "ShapeError: axis\n  x: 3"


def test_a_config_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read"):
        launch(tmp_path / "none.yml")


class Tuner:
    """A process as psutil shows it."""

    def __init__(self, number):
        self.pid, self.lives = number, True

    def cmdline(self):
        return ["python", "-m", "nni", "--exp_params", "e30="]

    def is_running(self):
        return self.lives

    def status(self):
        return psutil.STATUS_RUNNING


def test_only_a_tuner_that_was_seen_can_be_missing(monkeypatch):
    """A healthy run used to be stopped where a process does not show its environment."""
    run, tuner = experiment.LocalExperiment(1), Tuner(7)
    monkeypatch.setattr(run, "processes", list)
    assert run.tuner_lives()
    monkeypatch.setattr(run, "processes", lambda: [tuner])
    assert run.tuner_lives()
    tuner.lives = False
    monkeypatch.setattr(run, "processes", list)
    assert not run.tuner_lives() and not run.tuner_lives()
    monkeypatch.setattr(run, "processes", lambda: [Tuner(8)])
    assert run.tuner_lives()


def test_only_marked_processes_are_ours():
    assert experiment.LocalExperiment(1).processes() == []
