"""What goes on with a run: more training, another try of the export, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from trials import settings

import nni_dynconv
from nni_dynconv import export
from nni_dynconv.commands.cli import main
from nni_dynconv.errors import RunError
from nni_dynconv.experiments import again, trial
from nni_dynconv.runs import TRAINED, UNTRAINED, Run

TESTS = Path(__file__).parents[1]
SHORT = {"contenders": 4, "rerank": 0}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Trials run where the tests' modules are."""
    monkeypatch.setenv("NNI_CODE_DIR", str(TESTS))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def searched(folder, **strategy):
    trial.search(settings(strategy={**SHORT, **strategy}), folder)
    return Run.read(folder)


@pytest.mark.whole
def test_an_untrained_run_is_trained_measured_and_exported(here, capsys):
    run = searched(here, final_epochs=0)
    assert run.facts["state"] == UNTRAINED and "NOT trained" in run.told()[0]
    before = run.facts["result"]
    assert main(["train", str(here), "--epochs", "6"]) == 0
    now = Run.read(here)
    assert now.facts["state"] == TRAINED and now.facts["epochs"] == 6 and now.facts["result"] < before
    assert "6 epochs more" in capsys.readouterr().out and now.told() == []
    assert nni_dynconv.load(here).architecture == now.facts["architecture"]


@pytest.mark.whole
def test_a_trained_run_goes_on_and_a_result_that_is_no_better_is_not_kept(here, monkeypatch, capsys):
    searched(here, final_epochs=2)
    epochs = Run.read(here).facts["epochs"]
    trained = again.train_on(here, 3)
    kept = Run.read(here).facts
    better = trained.result == kept["result"]
    assert kept["epochs"] == epochs + (3 if better else 0)
    weights = (here / "weights.safetensors").read_bytes()
    Run(here).note(result=0.0)  # nothing is better than that
    assert main(["train", str(here), "--epochs", "1"]) == 0
    assert "no better than 0" in capsys.readouterr().out
    assert Run.read(here).facts["result"] == 0.0 and (here / "weights.safetensors").read_bytes() == weights


def test_a_failed_export_is_tried_again(here, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise RuntimeError("no graph")

    with monkeypatch.context() as broken:
        broken.setattr(export, "save", fails)
        run = searched(here)
        assert run.problems == {"export": "RuntimeError: no graph"} and not run.network.is_file()
        with pytest.raises(RuntimeError, match="no graph"):
            again.export_again(here)
    assert main(["export", str(here)]) == 0
    assert "nni_dynconv.load" in capsys.readouterr().out and Run.read(here).problems == {}
    torch.manual_seed(0)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(nni_dynconv.load(here)(x), again.reopen(here).network(x))


def report(mutator, sample, folder):
    raise OSError("the picture cannot be drawn")


@pytest.mark.whole
def test_a_report_that_raises_leaves_the_network_and_is_noted(here):
    """It used to fail the trial, and the whole search with it."""
    summary = trial.search(settings(strategy=SHORT, report=f"{__name__}:report"), here)
    run = Run.read(here)
    assert run.problems == {"report": "OSError: the picture cannot be drawn"}
    assert nni_dynconv.load(here).architecture == summary["architecture"]
    assert json.loads((here / "summary.json").read_text())["architecture"] == summary["architecture"]


def test_a_folder_that_is_no_run_is_refused(here, capsys):
    here.mkdir()
    assert main(["train", str(here)]) == 2
    assert "There is no run in" in capsys.readouterr().err


def test_a_run_of_python_code_asks_for_a_yaml(here):
    run = Run(here)
    run.begin(state=UNTRAINED, architecture={"first": "3", "last": "static"})
    with pytest.raises(RunError, match=r"written by Python code.*`--config CONFIG`"):
        again.reopen(here)


def test_a_run_whose_search_did_not_end_has_nothing_to_train(here):
    Run(here).begin(settings={})
    with pytest.raises(RunError, match="has found nothing: its search did not end"):
        again.train_on(here)


@pytest.mark.whole
def test_weights_of_another_network_are_refused(here):
    searched(here, final_epochs=0)
    other = {"first": "1", "last": "dynamic"}
    found = Run.read(here).facts["architecture"]
    other = other if found != other else {"first": "3", "last": "static"}
    Run(here).note(architecture=other)
    Run(here).write_architecture(other)
    with pytest.raises(RunError, match="does not hold the weights of this network"):
        again.export_again(here)


WAVES = {"space": "own_search:Waves", "evaluator": "own_search:evaluator", "metric": "val_acc"}
CONTEXT = {"name": "vector", "in_features": 2, "dim": 8}


@pytest.mark.whole
def test_few_sets_of_weights_are_measured_and_written_and_noted_in_the_page(here, capsys):
    chosen = {**WAVES, "context": CONTEXT, "evaluator_args": {"epochs": 2}, "optimize_mode": "maximize"}
    trial.search(settings(strategy=SHORT, **chosen), here)
    assert main(["export", str(here), "--to", "clusters", "--clusters", "3", "--tolerance", "1"]) == 0
    out = capsys.readouterr().out
    assert "of 96 contexts, on validation batches" in out and "Recommended: 1" in out
    told = json.loads((here / "clusters.json").read_text())
    assert [row["clusters"] for row in told["rows"]] == [1, 2, 3, 4, 8, 16]
    assert nni_dynconv.load(here / "clusters").source.controller.clusters == 3
    assert "With few sets of weights" in (here / "report.html").read_text()
    assert main(["export", str(here), "--to", "clusters", "--clusters", "97"]) == 2
    assert "97 clusters of 96 contexts" in capsys.readouterr().err


@pytest.mark.whole
def test_a_run_without_a_context_has_nothing_to_cluster(here, capsys):
    searched(here, final_epochs=0)
    assert main(["export", str(here), "--to", "clusters"]) == 2
    assert "made from nothing that is given" in capsys.readouterr().err
