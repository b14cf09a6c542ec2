"""Which error ended a program, out of all that it wrote."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nni_dynconv.launching.causes import cause_in
from nni_dynconv.launching.experiment import LocalExperiment
from nni_dynconv.launching.nni_logs import said_in
from nni_dynconv.launching.running.watching import trial_failure


def log_of(tmp_path, program):
    (tmp_path / "task.py").write_text(program)
    done = subprocess.run([sys.executable, "task.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    return done.stderr


NOISE = """
import atexit, sys, threading, warnings

class Pool:
    def __del__(self):
        raise AttributeError("the pool is gone")

pool = Pool()
atexit.register(lambda: 1 / 0)
warnings.warn("resource leaked")
"""


def test_what_is_said_as_a_program_shuts_down_is_not_its_cause(tmp_path):
    log = log_of(tmp_path, NOISE + "weights = {}\nweights['body']\n")
    assert "the pool is gone" in log and "division by zero" in log
    assert cause_in(log).splitlines()[0] == "KeyError: 'body'"
    assert "weights['body']" in cause_in(log) and "pool" not in cause_in(log)


def test_an_error_of_a_thread_is_not_the_cause(tmp_path):
    thread = "t = threading.Thread(target=lambda: [][1]); t.start(); t.join()\n"
    log = log_of(tmp_path, NOISE + thread + "raise ValueError('no data')\n")
    assert "IndexError" in log and cause_in(log).startswith("ValueError: no data")


OURS = """
from nni_dynconv.errors import ContextError
try:
    {}["context"]
except KeyError as error:
    raise ContextError("The context is missing.\\n  Give one.") from error
"""


def test_of_errors_that_followed_from_each_other_the_last_is_told_and_ours_in_words_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    log = log_of(tmp_path, NOISE + OURS)
    assert "KeyError" in log and "Traceback" in log
    assert cause_in(log) == "ContextError: The context is missing.\n  Give one."


def test_where_nothing_was_raised_the_last_lines_are_told():
    assert cause_in("one\ntwo\n") == "one\ntwo"
    assert cause_in("\n".join(map(str, range(20)))) == "\n".join(map(str, range(8, 20)))


@pytest.mark.whole
def test_of_a_trial_of_ours_its_own_words_are_told(tmp_path):
    """The last lines of its log used to be told, whatever those were."""
    command = [sys.executable, "-m", "nni_dynconv.trial"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NNI_OUTPUT_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    (tmp_path / "trial.stderr").write_text(done.stderr + "Exception ignored in: <function __del__>\n" + "noise\n" * 50)
    told = trial_failure({"trialJobId": "abc", "logPath": str(tmp_path)}, LocalExperiment(1))
    assert "It said:\n  This trial was given {}, which is no proposal of the tuner" in told
    assert "Traceback" in done.stderr and "Traceback" not in told and "noise" not in told


@pytest.mark.parametrize("name", ["error.txt", "trial.stderr", "stderr"])
def test_a_trials_own_words_come_first(tmp_path, name):
    order = ["error.txt", "trial.stderr", "stderr"]
    for one in order[order.index(name) :]:
        (tmp_path / one).write_text(f"said in {one}")
    assert said_in(tmp_path) == f"said in {name}"
