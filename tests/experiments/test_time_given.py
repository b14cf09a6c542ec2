"""The time that NNI's settings and ``launch --timeout`` leave for a trial is told to it."""

from __future__ import annotations

import base64
import json
import math
import sqlite3
import sys
from types import SimpleNamespace

import pytest
from trials import CLASS_ARGS

from nni_dynconv.errors import LaunchError
from nni_dynconv.experiments import time_given, trial
from nni_dynconv.experiments.time_given import UNTIL, TimeGiven
from nni_dynconv.experiments.tuner import DynamicWeightTuner
from nni_dynconv.launching import experiment as launching
from nni_dynconv.launching.experiment import NOTICING, LocalExperiment


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    one = SimpleNamespace(now=100.0, time=lambda: 1e9 + one.now, monotonic=lambda: one.now)
    for module in (time_given, launching):
        monkeypatch.setattr(module, "time", one)
    return one


def test_a_trial_has_the_nearer_of_both_and_later_trials_have_less(clock):
    given = TimeGiven(experiment="30m", trial="10m", spent=60.0)
    assert given.seconds() == 600.0
    clock.now += 1500.0
    assert given.seconds() == 240.0
    clock.now += 1500.0
    assert given.seconds() == 0.0
    assert TimeGiven().seconds() is None and TimeGiven(trial=90).seconds() == 90.0


def test_after_a_resume_the_time_before_counts(clock, tmp_path):
    (tmp_path / "db").mkdir()
    with sqlite3.connect(tmp_path / "db" / "nni.sqlite") as connection:
        connection.execute("CREATE TABLE ExperimentProfile (revision INTEGER, execDuration INTEGER)")
        connection.executemany("INSERT INTO ExperimentProfile VALUES (?, ?)", [(0, 0), (2, 500), (1, 250)])
    params = {"maxExperimentDuration": "1000s"}
    assert TimeGiven.of(params, tmp_path).seconds() == 500.0
    assert TimeGiven.of(params, tmp_path / "new").seconds() == 1000.0
    assert TimeGiven.of({}, tmp_path).seconds() is None


@pytest.mark.parametrize(("params", "expected"), [({"maxTrialDuration": "10m"}, {"seconds": 600.0}), ({}, {})])
def test_the_tuner_tells_it_in_a_proposal(params, expected, monkeypatch):
    told = base64.b64encode(json.dumps(params).encode()).decode()
    monkeypatch.setattr(sys, "argv", ["nni", "--exp_params", told])
    tuner = DynamicWeightTuner(**{**CLASS_ARGS, "mode": "one_shot"})
    tuner.update_search_space({})
    proposed = tuner.generate_parameters(0)
    assert {key: one for key, one in proposed.items() if key == "seconds"} == expected


def test_launch_tells_all_processes_when_it_will_end_them(clock, monkeypatch, tmp_path):
    experiment = LocalExperiment(1)
    monkeypatch.setattr(experiment, "_nnictl", lambda *asked: (1, "no"))
    assert UNTIL not in experiment.environment
    with pytest.raises(LaunchError):
        experiment.create(tmp_path, deadline=clock.now + 60.0)
    assert float(experiment.environment[UNTIL]) == 1e9 + clock.now + 60.0 - NOTICING
    with pytest.raises(LaunchError):
        experiment.create(tmp_path)
    assert UNTIL not in experiment.environment


@pytest.mark.parametrize("given", [{}, {"seconds": 5.0}, {UNTIL: "1e9"}], ids=["none", "by NNI", "by launch"])
def test_a_trial_hands_it_to_its_search(given, monkeypatch, tmp_path):
    def strategy(self, *, allotted, **options):
        seen.append(allotted)
        raise KeyboardInterrupt

    seen = []
    monkeypatch.setattr("nni_dynconv.supernet.DynamicWeightMutator.strategy", strategy)
    monkeypatch.setattr(trial, "age", lambda: 2.0)
    monkeypatch.delenv(UNTIL, raising=False)
    if UNTIL in given:
        monkeypatch.setenv(UNTIL, given[UNTIL])
    settings = {**CLASS_ARGS, "evaluator": "toy_task:evaluator"}
    with pytest.raises(KeyboardInterrupt):
        trial._run({"mode": "one_shot", "settings": settings, "proposal": 0, **given}, (), tmp_path)
    (found,) = seen
    assert found.seconds == (3.0 if "seconds" in given else math.inf)
    assert found.until == (1e9 if UNTIL in given else math.inf)
