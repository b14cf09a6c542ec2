"""The process of a try: its verdict is told, whatever becomes of it, and nothing of it is left."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import yaml

from nni_dynconv.errors import LaunchError
from nni_dynconv.launching import trying

TESTS = Path(__file__).parents[1]


def write(folder, **class_args):
    named = {"mode": "one_shot", "space": "wrong_experiments:Space", "evaluator": "wrong_experiments:evaluator"}
    document = {
        "searchSpace": {},
        "trialCommand": "python3 -m nni_dynconv.trial",
        "trialCodeDirectory": str(TESTS),
        "trialConcurrency": 1,
        "maxTrialNumber": 1,
        "tuner": {"name": "DynamicWeightMutator", "classArgs": {**named, "metric": "val_loss", **class_args}},
        "trainingService": {"platform": "local"},
    }
    path = folder / "experiment.yml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.whole
def test_check_stays_static_and_with_try_tells_what_a_batch_shows(lab):
    config = write(lab.folder, context={"name": "vector", "in_features": 7, "dim": 8})
    assert lab.run("check", config)[0] == 0
    status, output, error = lab.run("check", config, "--try")
    assert status == 1 and "trying: starting" in output
    assert "The experiment was tried, and fails.\nAll of 3 architectures fail" in error and "D = 7" in error
    assert "Traceback" not in error


@pytest.mark.whole
def test_launch_starts_nothing_where_the_try_fails(lab):
    config = write(lab.folder, evaluator_args={"form": "triple"})
    status, _, error = lab.run("launch", config)
    assert status == 1 and "The experiment was tried, and fails." in error and "x, y = batch" in error
    assert not (lab.folder / "experiments").exists()


@pytest.mark.slow
def test_launch_tells_the_first_trials_own_error_in_words(lab):
    """What it told used to be the last lines of its log, whatever those were."""
    noisy = {"evaluator_args": {"form": "plain", "module": "Noisy"}, "metric": "val_acc"}
    status, output, error = lab.run("launch", write(lab.folder, **noisy), "--no-try")
    assert status == 1 and "trial 0: " in output, error
    assert "It said:\n  `metric` is `val_acc`, but the evaluator logs ['entropy', 'val_loss'] in validation." in error
    assert "Traceback" not in error and "noise" not in error


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Let another program stand in for the process of a try."""

    def stand_in(program):
        (tmp_path / "stand_in.py").write_text(program)
        plain = trying._running

        def running(command, output, environment):
            return plain([command[0], str(tmp_path / "stand_in.py"), *command[-2:]], output, environment)

        monkeypatch.setattr(trying, "_running", running)

    return stand_in


def test_a_process_that_dies_is_told_by_how_it_ended_and_what_it_said_last(stand_in):
    stand_in("print('loading the data', flush=True); import os; os.kill(os.getpid(), 9)")
    with pytest.raises(LaunchError, match="(?s)ended by SIGKILL, at: starting.*memory runs out.*loading the data"):
        trying.try_out("experiment.yml", lambda line: None)
    stand_in("import sys; sys.exit(3)")
    with pytest.raises(LaunchError, match="ended with status 3"):
        trying.try_out("experiment.yml", lambda line: None)


def test_a_try_that_takes_too_long_is_ended_with_its_children(stand_in):
    stand_in("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])")
    began = time.monotonic()
    with pytest.raises(LaunchError, match="--timeout"):
        trying.try_out("experiment.yml", lambda line: None, deadline=began + 2)
    assert time.monotonic() - began < 30


def test_what_was_measured_is_said(stand_in):
    stand_in(
        "import json, sys\nverdict = {'measured': ['Tried.', '  a step 1 s']}\n"
        "json.dump(verdict, open(sys.argv[2] + '/verdict.json', 'w'))"
    )
    said = []
    trying.try_out("experiment.yml", said.append, math.inf)
    assert said[-2:] == ["Tried.", "  a step 1 s"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainingService": {"platform": "remote"}}, "other machines"),
        ({"trialCommand": "python3 mine.py"}, "a command of your own"),
        ({}, None),
    ],
)
def test_an_experiment_whose_trials_are_not_ours_to_try_is_not_tried(changes, words, tmp_path):
    path = write(tmp_path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    found = trying.why_not(path)
    assert (found is None) if words is None else (words in found)
