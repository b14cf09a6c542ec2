"""What a launch leaves: all of the trial's own files, and an earlier launch's until then."""

from __future__ import annotations

import json
import shutil

import pytest

from nni_dynconv.errors import LaunchError
from nni_dynconv.launching import results
from nni_dynconv.launching.experiment import LocalExperiment
from nni_dynconv.launching.progress import Outcome
from nni_dynconv.launching.results import check_output, deliver
from nni_dynconv.runs import UNTRAINED, Run


@pytest.fixture
def delivered(tmp_path):
    """Deliver the files of a trial into `out`."""
    trial = tmp_path / "trial"
    (trial / "mine").mkdir(parents=True)
    for name in ("summary.json", "mine/metrics", "mine/stdout", "mine/trial.csv", "trial.log", "stdout", "stderr"):
        (trial / name).write_text("{}")
    experiment = LocalExperiment(1)
    experiment.id = "abc"

    def run(metric):
        outcome = Outcome(best={"trialJobId": "xyz", "logPath": str(trial)}, metric=metric, succeeded=1)
        deliver(outcome, experiment, tmp_path / "deep" / "out", 0.0, lambda line: None)

    return run


def test_files_of_nnis_are_left_out_and_the_trials_own_are_not(delivered, tmp_path):
    """A file of the user's with such a name, in a folder of the user's, used to be missing."""
    delivered(0.5)
    folder = tmp_path / "deep" / "out"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"experiment.json", "trials.csv", "summary.json", "mine/metrics", "mine/stdout", "mine/trial.csv"}
    assert json.loads((folder / "summary.json").read_text())["experiment_id"] == "abc"


@pytest.mark.parametrize("step", ["_copy", "_write_facts", "_put_in_place"])
def test_what_an_earlier_launch_left_stays_until_the_new_files_are_whole(step, delivered, tmp_path, monkeypatch):
    """It used to be deleted first, and a folder without `experiment.json` stood in the way of the next launch."""
    delivered(0.5)
    monkeypatch.setattr(results, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        delivered(0.7)
    folder = tmp_path / "deep" / "out"
    assert json.loads((folder / "experiment.json").read_text())["result"] == 0.5
    assert list(folder.parent.iterdir()) == [folder]
    monkeypatch.undo()
    check_output(folder)
    delivered(0.7)
    assert json.loads((folder / "experiment.json").read_text())["result"] == 0.7


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_swap_that_fails_puts_the_old_folder_back(delivered, tmp_path, monkeypatch):
    delivered(0.5)
    whole = results._write_facts

    def lost(folder, *arguments):
        whole(folder, *arguments)
        shutil.rmtree(folder)

    monkeypatch.setattr(results, "_write_facts", lost)
    with pytest.raises(LaunchError, match=r"cannot be written: .*\nIt holds what it held.*lie in .*trial"):
        delivered(0.7)
    assert json.loads((tmp_path / "deep" / "out" / "experiment.json").read_text())["result"] == 0.5


def test_the_last_lines_say_what_failed_and_the_command_that_goes_on(tmp_path):
    """A failed export used to fail the trial, and the search was lost."""
    run, said = Run(tmp_path / "trial"), []
    run.begin(state=UNTRAINED)
    run.mark("export", "ExportError: no graph")
    outcome = Outcome(best={"trialJobId": "xyz", "logPath": str(run.folder)}, metric=0.5, succeeded=1)
    experiment = LocalExperiment(1)
    experiment.id = "abc"
    deliver(outcome, experiment, tmp_path / "out", 0.0, said.append)
    assert said[-3:] == [
        f"The network is NOT trained to the end. `nni-dynconv train {tmp_path / 'out'}` trains it.",
        "FAILED: export: ExportError: no graph",
        f"Nothing is lost. `nni-dynconv export {tmp_path / 'out'}` tries the export again.",
    ]
    assert not any("nni_dynconv.load" in line for line in said)


def test_where_no_trial_brought_a_result_what_one_had_found_is_named(tmp_path):
    run = Run(tmp_path / "trial")
    run.begin(state=UNTRAINED)
    run.weights.write_text("")
    (tmp_path / "other").mkdir()
    outcome = Outcome(failed=2, left=[str(run.folder), str(tmp_path / "other")])
    with pytest.raises(LaunchError, match=rf"{run.folder} holds what.*`nni-dynconv train {run.folder}`") as told:
        deliver(outcome, LocalExperiment(1), None, 0.0, lambda line: None)
    assert "other" not in str(told.value)


def test_what_a_trial_had_found_is_named_beside_the_best_one_too(tmp_path):
    run = Run(tmp_path / "trial")
    run.begin(state=UNTRAINED)
    run.weights.write_text("")
    said, best = [], {"trialJobId": "a", "logPath": str(tmp_path / "best")}
    outcome = Outcome(best=best, metric=0.5, succeeded=1, stopped=1, left=[str(run.folder)])
    deliver(outcome, LocalExperiment(1), None, 0.0, said.append)
    assert any(line.startswith(f"{run.folder} holds what the search") for line in said)


@pytest.mark.parametrize("exported", [True, False])
def test_the_last_lines_tell_how_the_network_is_used_where_there_is_one(exported, tmp_path):
    said, run = [], Run(tmp_path)
    run.begin()
    if exported:
        run.network.write_text('{"trust": []}')
    results._say_run(tmp_path, said.append)
    assert any(f'nni_dynconv.load("{tmp_path}")' in line for line in said) == exported
