"""Where a launch leaves its run: a finished one is replaced with a word, an unfinished one is not."""

from __future__ import annotations

import json

import pytest

from nni_dynconv.errors import LaunchError
from nni_dynconv.launching.destination import Destination
from nni_dynconv.launching.results import check_output


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def test_a_finished_run_is_replaced_and_that_is_said(folder):
    said = []
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps({"experiment_id": "abc", "result": 0.5}))
    Destination(folder).check(said.append)
    assert said == [
        f"`--output` {folder} holds the run of experiment abc, result 0.5. It is replaced when this one is over."
    ]


def test_an_unfinished_run_is_not_written_over_but_resumed(folder):
    destination = Destination(folder)
    destination.mark("abc")
    check_output(folder)
    with pytest.raises(LaunchError, match=r"`nni-dynconv resume abc --output .*out` goes on with it"):
        Destination(folder).check(print)
    Destination(folder).check(print, resumed="abc")
    with pytest.raises(LaunchError, match="experiment abc"):
        Destination(folder).check(print, resumed="other")
    (folder / "unfinished.json").unlink()
    Destination(folder).check(print)


def test_the_note_stays_beside_a_finished_run_and_says_whose_it_is_first(folder):
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps({"experiment_id": "old", "result": 1.0}))
    for experiment in ("new", "newer"):
        Destination(folder).mark(experiment)
    assert json.loads((folder / "unfinished.json").read_text()) == {"experiment_id": "new"}
    assert json.loads((folder / "experiment.json").read_text())["experiment_id"] == "old"


def test_an_experiment_that_ended_without_a_result_is_not_one_to_resume(folder):
    for earlier in (False, True):
        if earlier:
            folder.mkdir()
            (folder / "experiment.json").write_text("{}")
        Destination(folder).mark("abc")
        Destination(folder).over()
        Destination(folder).check(lambda line: None)
        assert folder.exists() == earlier


def test_without_an_output_nothing_is_said_or_written(tmp_path):
    destination = Destination(None)
    destination.mark("abc")
    destination.check(print)
    destination.over()
    assert not list(tmp_path.iterdir())
