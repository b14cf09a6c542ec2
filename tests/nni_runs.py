"""Real NNI experiments for tests: own home and NNI configuration, and no process of theirs outlives a test."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import psutil
import torch
import yaml

from nni_dynconv.experiments.state import STATE_FILE, read_state
from nni_dynconv.launching.nni_logs import error_in_log
from nni_dynconv.launching.nnictl import choose_port

REPOSITORY = Path(__file__).parents[1]
MARK = "NNI_DYNCONV_TEST"

STUB_TRIAL = """
import json, os, sys, time
import nni
parameters = nni.get_next_parameter()
number = parameters["proposal"]
if number in {failing}:
    sys.exit("trial of proposal %d fails on purpose" % number)
for epoch in range({epochs}):
    nni.report_intermediate_result(float(number + epoch))
    time.sleep({pause})
folder = os.environ["NNI_OUTPUT_DIR"]
for name in ("architecture.json", "summary.json"):
    with open(os.path.join(folder, name), "w") as file:
        json.dump({{"architecture": parameters.get("sample"), "proposal": number, "code": os.getcwd()}}, file)
nni.report_final_result({{"default": float(number), "proposal": number}})
"""

STUB_TASK = "class Space: ...\ndef evaluator(): ...\n"


class Lab:
    """A folder with a home of its own, where experiments are written, run and looked at."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        for name in ("home", "nni"):
            (folder / name).mkdir()

    @property
    def environment(self):
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "NNI_CONFIG_DIR": str(self.folder / "nni"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
        }

    def write(self, class_args=None, stub=None, **document):
        """Write an experiment whose trial is a stub: one that says ``epochs`` numbers, ``pause`` seconds apart."""
        (self.folder / "stub_task.py").write_text(STUB_TASK)
        stub = {"failing": (), "epochs": 2, "pause": 0.1, **(stub or {})}
        (self.folder / "stub_trial.py").write_text(STUB_TRIAL.format(**stub))
        named = {"mode": "one_shot", "space": "stub_task:Space", "evaluator": "stub_task:evaluator"}
        content = {
            "searchSpace": {},
            "trialCommand": "python3 stub_trial.py",
            "trialCodeDirectory": ".",
            "trialConcurrency": 1,
            "maxTrialNumber": 2,
            "experimentWorkingDirectory": "experiments",
            "tuner": {"name": "DynamicWeightMutator", "classArgs": {**named, **(class_args or {})}},
            "trainingService": {"platform": "local"},
            **document,
        }
        path = self.folder / "experiment.yml"
        path.write_text(yaml.safe_dump(content))
        return path

    def start(self, *arguments, more=None, **options):
        """Start ``nni-dynconv ARGUMENTS``; `more` goes into its environment, its paths before the others."""
        command = [sys.executable, "-m", "nni_dynconv.commands", *map(str, arguments)]
        environment = {**self.environment, **(more or {})}
        if "PYTHONPATH" in (more or {}):
            environment["PYTHONPATH"] = os.pathsep.join([more["PYTHONPATH"], self.environment["PYTHONPATH"]])
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environment, **{**pipes, **options})

    def start_on(self, *arguments, terminal):
        """Start it in a session of its own, with what it prints in a file or on a terminal."""
        return self.start(*arguments, stdout=terminal, stderr=terminal, text=False, start_new_session=True)

    def run(self, *arguments, timeout=120):
        """Run ``nni-dynconv ARGUMENTS`` to its end: status, output, error."""
        process = self.start(*arguments)
        output, error = process.communicate(timeout=timeout)
        return process.returncode, output, error

    def nnictl(self, *arguments, loopback=True):
        """Plain ``nnictl ARGUMENTS``; the tests' own servers stay on this machine."""
        preload = (
            {"NODE_OPTIONS": f'--require "{REPOSITORY / "nni_dynconv" / "launching" / "loopback.js"}"'}
            if loopback
            else {}
        )
        command = [str(Path(sys.executable).parent / "nnictl"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env={**self.environment, **preload}, capture_output=True, text=True, timeout=90
        )

    def processes(self):
        """Living processes that a command of this lab started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def end_processes(self):
        """Kill what a failing test left, by process id."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue


def ask(port, path):
    """Ask NNI's REST interface on the loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/api/v1/nni/{path}", timeout=10) as answer:
        return json.load(answer)


def wait_until(condition, seconds, what="it"):
    """Poll until the condition gives something true, and return that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {seconds} s for {what}")


def unpacked_state(raw):
    if raw.startswith(b"{"):
        return json.loads(raw)
    state = torch.load(io.BytesIO(raw), weights_only=True)
    return {**json.loads(state["tuner"]), "sampler": state["sampler"]}


class Run:
    """One experiment under plain ``nnictl``."""

    def __init__(self, lab: Lab, *arguments):
        self.lab, self.port = lab, choose_port(None)
        done = lab.nnictl(*arguments, "--port", self.port)
        assert done.returncode == 0, done.stdout + done.stderr
        profile = ask(self.port, "experiment")
        self.id, self.folder = profile["id"], Path(profile["logDir"])

    def jobs(self):
        error = error_in_log((self.folder / "log" / "dispatcher.log").read_text()) if self._has_log() else None
        assert error is None, error
        jobs = ask(self.port, "trial-jobs")
        for job in jobs:
            assert job["status"] != "FAILED", (Path(job["logPath"]) / "trial.stderr").read_text()[-4000:]
        return jobs

    def _has_log(self):
        return (self.folder / "log" / "dispatcher.log").is_file()

    def results(self):
        return [job for job in self.jobs() if job.get("finalMetricData")]

    def wait_for_results(self, number, seconds):
        return wait_until(lambda: len(self.results()) >= number and self.results(), seconds, f"{number} results")

    def wait_for_end(self, seconds):
        wait_until(lambda: self.jobs() and self.status() == "DONE", seconds, "the end")
        return self.results()

    def status(self):
        return ask(self.port, "check-status")["status"]

    def stop(self):
        """Stop it and see that NNI's processes are gone."""
        self.lab.nnictl("stop", self.id)
        wait_until(lambda: not self.lab.processes(), 20, "the end of the processes")

    def state(self):
        """What the tuner saved: proposals and counted results, and the sampler's own state."""
        return read_state(self.folder / "checkpoint" / STATE_FILE, unpacked_state, print)
