"""What NNI leaves out of a resume: ids that go on, and results in its database that no tuner was told."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest
from nni.recoverable import Recoverable
from nni.runtime import msg_dispatcher
from nni.runtime.msg_dispatcher import MsgDispatcher

from nni_dynconv.experiments.recovery import continue_parameter_ids, reported_results


@pytest.fixture
def dispatcher(monkeypatch):
    monkeypatch.setattr(MsgDispatcher, "recover_parameter_id", Recoverable.recover_parameter_id)
    monkeypatch.setattr(msg_dispatcher, "_next_parameter_id", 0)
    return MsgDispatcher("ws://_unittest_placeholder_", tuner=None)


def database(folder, rows):
    """Write a database as NNI's manager does: metrics by trial, each JSON inside JSON."""
    (folder / "db").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as connection:
        columns = "timestamp INTEGER, trialJobId TEXT, parameterId TEXT, type TEXT, sequence INTEGER, data TEXT"
        connection.execute(f"CREATE TABLE MetricData ({columns})")
        for time, (kind, value) in enumerate(rows):
            row = (time, "abc", "0", kind, 0, json.dumps(json.dumps(value)))
            connection.execute("INSERT INTO MetricData VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.commit()


def test_nnis_parameter_ids_go_on_after_a_resume(dispatcher):
    """NNI used to start over, so that two trials had the same."""
    dispatcher.handle_add_customized_trial([])
    assert msg_dispatcher._create_parameter_id() == 1
    continue_parameter_ids(7)
    assert msg_dispatcher._create_parameter_id() == 7  # asked for before NNI tells what it runs again
    dispatcher.handle_add_customized_trial([{"parameter_id": 4, "parameters": {"proposal": 9}}])
    assert msg_dispatcher._create_parameter_id() == 8
    assert dispatcher.recovered_trial_params == {4: {"proposal": 9}}


def test_final_results_that_name_their_proposal_are_found_in_order(tmp_path):
    named = [{"default": 0.5, "proposal": 3}, {"default": 0.1, "proposal": 0}]
    rows = [("PERIODICAL", 0.2), ("FINAL", named[0]), ("FINAL", 0.7), ("FINAL", {"default": 1.0}), ("FINAL", named[1])]
    database(tmp_path / "a folder", rows)
    assert reported_results(tmp_path / "a folder") == named


def test_without_a_database_there_are_no_results(tmp_path):
    assert reported_results(tmp_path) == []
