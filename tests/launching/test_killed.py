"""Which trials a resume runs again: those that were killed, and none that crashed, was canceled, or is done."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from nni_dynconv.launching.killed import run_killed_again

ROWS = "timestamp integer, trialJobId text, event text, data text, logPath text, sequenceId integer, message, env"


class Experiment:
    """The records of an experiment that is stopped."""

    def __init__(self, folder):
        self.folder, self.trial = folder, folder / "environments" / "local-env" / "trials" / "abcde"
        self.trial.mkdir(parents=True)
        (folder / "db").mkdir()
        with self.database() as database:
            database.execute(f"CREATE TABLE TrialJobEvent ({ROWS})")
            database.execute("CREATE TABLE MetricData (trialJobId text, type text)")

    @contextlib.contextmanager
    def database(self):
        with contextlib.closing(sqlite3.connect(self.folder / "db" / "nni.sqlite")) as database:
            yield database
            database.commit()

    def had(self, *events, final=False):
        with self.database() as database:
            for event in events:
                row = (1, "abcde", event, "{}", str(self.trial), 3, None, "local-env")
                database.execute("INSERT INTO TrialJobEvent VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            if final:
                database.execute("INSERT INTO MetricData VALUES ('abcde', 'FINAL')")
        return self

    def resumed(self, one_shot=True):
        """What the resume says, and what NNI then takes the trial for."""
        said = []
        run_killed_again(self.folder, one_shot, said.append)
        with self.database() as database:
            query = "SELECT event, sequenceId FROM TrialJobEvent ORDER BY rowid"
            return said, database.execute(query).fetchall()[-1]


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


@pytest.mark.parametrize("end", ["USER_CANCELED", "FAILED", "SYS_CANCELED", "ADD_RESUMED"])
def test_a_trial_that_was_killed_waits_again_whatever_nni_calls_that(end, experiment):
    said, last = experiment.had("WAITING", "RUNNING", end).resumed()
    assert last == ("WAITING", 3)
    assert said == ["  trial 3 (abcde) was interrupted, and runs again from its beginning."]


def test_it_is_told_from_where_it_goes_on(experiment):
    checkpoints = experiment.trial / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "00000007.checkpoint").touch()
    (checkpoints / "where.txt").write_text("in its search, in epoch 2 after batch 0 (`00000007.checkpoint`)")
    said, _ = experiment.had("RUNNING", "FAILED").resumed()
    assert said[0].endswith(
        "was interrupted, and goes on in its search, in epoch 2 after batch 0 (`00000007.checkpoint`)."
    )


@pytest.mark.parametrize("events", [("RUNNING",), ("WAITING",)])
def test_one_that_nni_runs_again_itself_is_only_told(events, experiment):
    said, last = experiment.had(*events).resumed()
    assert last[0] == events[-1] and "was interrupted" in said[0]


@pytest.mark.parametrize("left", ["error.txt", "crash.txt"])
def test_one_that_crashed_stays_failed(left, experiment):
    (experiment.trial / left).write_text("Fatal Python error: Segmentation fault")
    assert experiment.had("RUNNING", "FAILED").resumed() == ([], ("FAILED", 3))


def test_an_empty_word_of_a_crash_is_none(experiment):
    (experiment.trial / "crash.txt").touch()  # the trial was killed
    assert experiment.had("RUNNING", "USER_CANCELED").resumed()[1] == ("WAITING", 3)


CANCELED = ("RUNNING", "USER_TO_CANCEL", "USER_CANCELED")


@pytest.mark.parametrize("events", [CANCELED, ("RUNNING", "SUCCEEDED"), ("EARLY_STOPPED",)])
def test_one_that_was_canceled_or_is_over_stays_so(events, experiment):
    assert experiment.had(*events).resumed() == ([], (events[-1], 3))


def test_one_that_has_its_result_is_done_but_a_search_that_goes_on_after_it(experiment):
    experiment.had("RUNNING", "USER_CANCELED", final=True)
    assert experiment.resumed(one_shot=False) == ([], ("USER_CANCELED", 3))
    assert experiment.resumed(one_shot=True)[1] == ("WAITING", 3)


def test_without_records_there_is_nothing_to_do(tmp_path):
    run_killed_again(tmp_path, True, pytest.fail)
