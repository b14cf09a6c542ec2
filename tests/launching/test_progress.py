"""What trials have done, and where each of them is."""

from __future__ import annotations

import json

from nni_dynconv.launching.progress import Progress
from nni_dynconv.phases import Line, carried, phase


def job(trial, status, folder, number=0, final=None, **proposed):
    parameters = {"parameters": {"proposal": number, **proposed}}
    finals = [] if final is None else [{"data": json.dumps(str(final))}]
    more = {"hyperParameters": [json.dumps(parameters)], "finalMetricData": finals, "startTime": 1000 * number}
    return {"trialJobId": trial, "status": status, "sequenceId": number, "logPath": str(folder), **more}


def test_each_trial_tells_which_architecture_it_evaluates_and_evaluated(tmp_path):
    said = []
    (tmp_path / "architecture.json").write_text(json.dumps({"architecture": {"op": "conv5"}}))
    progress = Progress("maximize", said.append)
    progress.update([job("a", "RUNNING", "none", sample={"op": "conv3"})], [])
    assert said == ['  trial 0 (a)  RUNNING  {"op": "conv3"}']
    progress.update(
        [
            job("a", "SUCCEEDED", "none", 0, 0.5, sample={"op": "conv3"}),
            job("b", "USER_CANCELED", "none", 1, sample={"op": "skip"}),
            job("c", "SUCCEEDED", tmp_path, 2, 0.7, hyper_parameters={"rank": 4}),
            {"trialJobId": "d", "status": "FAILED", "logPath": None},
        ],
        [],
    )
    assert "  trial 1 (b)  USER_CANCELED, NNI's word also for one that was killed from outside" in "\n".join(said)
    outcome = progress.outcome()
    assert outcome.left == ["none"]  # a killed trial used to be left out: NNI does not call it failed
    assert (outcome.succeeded, outcome.stopped, outcome.failed, outcome.metric) == (2, 1, 1, 0.7)
    rows = {row["trial"]: row for row in outcome.evaluated}
    assert rows["a"]["architecture"] == {"op": "conv3"} and rows["a"]["result"] == 0.5
    assert rows["b"]["architecture"] == {"op": "skip"} and rows["b"]["result"] is None
    assert rows["c"]["architecture"] == {"op": "conv5"} and rows["c"]["hyper_parameters"] == {"rank": 4}
    assert rows["d"] == {"trial": "d", "number": None, "status": "FAILED", "result": None, "architecture": None}


def test_a_line_shows_the_phase_of_each_trial_that_runs(tmp_path):
    said = []
    with Line(said.append, live=False) as line:
        progress = Progress("maximize", line.say, line)
        progress.update([job("a", "WAITING", tmp_path)], [])
        with carried(tmp_path), phase("search", 5, "epoch"):
            progress.update([job("a", "RUNNING", tmp_path), job("b", "RUNNING", tmp_path / "none", 1)], [])
        progress.update([job("a", "SUCCEEDED", tmp_path)], [])
    shown = [one.split(",")[0] for one in said if one.startswith(("  trial 0:", "  trial 1:", "  waiting"))]
    assert sorted(shown) == ["  trial 0: search", "  trial 1: running", *["  waiting for a trial"] * 2]
