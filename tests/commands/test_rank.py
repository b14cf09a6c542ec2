"""`nni-dynconv rank`: scores by generated weights beside what training gives, and how far they agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_task
import yaml

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytorch_lightning as pl
import torch

from nni_dynconv import export
from nni_dynconv.commands import cli
from nni_dynconv.commands.ranking import _fidelity, rank
from nni_dynconv.errors import ConfigError, RankError
from nni_dynconv.experiments.trial import build
from nni_dynconv.search.ranking import Row, SupernetRanking, fidelity
from nni_dynconv.settings import check_class_args

CLASS_ARGS = {
    "mode": "one_shot",
    "space": "toy_task:ToySpace",
    "evaluator": "toy_task:evaluator",
    "evaluator_args": {"epochs": 10, "batches": 4},
    "metric": "val_loss",
    "optimize_mode": "minimize",
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    checked = check_class_args(CLASS_ARGS).to_dict()
    export.save_supernet(build(checked)[0], tmp_path / "supernet")
    return checked


def test_some_architectures_are_trained_and_compared_with_their_scores(settings, tmp_path):
    said = []
    found = rank(settings, tmp_path / "supernet", architectures=4, trained=3, batches=2, say=said.append)
    assert len(found.rows) == 4 and len({json.dumps(row.sample) for row in found.rows}) == 4
    assert [row.generated for row in found.rows] == sorted((row.generated for row in found.rows), reverse=True)
    trained = [row for row in found.rows if row.trained is not None]
    assert len(trained) == len(said) == 3
    assert sum(row.trained for row in trained) > sum(row.one_epoch for row in trained)
    expected = fidelity([row.generated for row in trained], [row.trained for row in trained], k=1)
    assert found.fidelity["generated"].tau == expected.tau
    assert set(found.fidelity) == {"generated", "one_epoch", "parameters", "synflow", "jacob_cov"}


def test_parameters_count_what_is_made_and_what_is_learned(settings, tmp_path):
    found = rank(settings, tmp_path / "supernet", architectures=4, trained=2, batches=1)
    counts = {(row.sample["first"], row.sample["last"]): row.parameters for row in found.rows}
    assert counts["1", "static"] == counts["1", "dynamic"] == (2 + 2) + (2 + 1)
    assert counts["3", "static"] == (2 * 9 + 2) + (2 + 1)


@pytest.mark.slow
def test_training_can_start_from_the_generated_weights(settings, tmp_path, monkeypatch):
    mutator, evaluator, _ = build({**settings, "metric": None})
    mutator.strategy(contenders=0).mutate_evaluator(evaluator).evaluate(mutator.space)
    export.save_supernet(mutator, tmp_path / "trained")
    options = {"architectures": 4, "trained": 4, "batches": 1}

    def gently(module):  # Adam's first steps are large ones, which undo what the supernet has learned
        return torch.optim.Adam(module.parameters(), lr=1e-4)

    monkeypatch.setattr(toy_task.ToyModule, "configure_optimizers", gently)
    fresh, warm = (rank(settings, tmp_path / "trained", start=start, **options) for start in ("scratch", "generated"))
    assert sum(row.one_epoch for row in warm.rows) > sum(row.one_epoch for row in fresh.rows)


@pytest.mark.whole
def test_the_command_prints_both_tables_and_writes_json(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nni_dynconv.commands.shared.entering.os.chdir", lambda folder: None)
    tuner = {"name": "DynamicWeightMutator", "classArgs": {**CLASS_ARGS}}
    document = {"searchSpace": {}, "trialCommand": "python3 -m nni_dynconv.trial", "trialConcurrency": 1}
    document |= {"trialCodeDirectory": str(Path(__file__).parents[1]), "tuner": tuner}
    config = tmp_path / "rank.yml"
    config.write_text(yaml.safe_dump({**document, "trainingService": {"platform": "local"}}))
    options = ["--architectures", "3", "--trained", "2", "--batches", "1", "--json", str(tmp_path / "rank.json")]
    assert cli.main(["rank", str(config), str(tmp_path / "supernet"), *options]) == 0
    said = capsys.readouterr().out
    assert "Against `val_loss` of 2 architectures trained from scratch" in said and "95 % interval" in said
    written = json.loads((tmp_path / "rank.json").read_text())
    assert len(written["rows"]) == 3 and "tau" in written["fidelity"]["one_epoch"]
    assert cli.main(["rank", str(config), str(tmp_path / "supernet"), *options[:-1], "-"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["rows"]) == 3 and "95 % interval" in printed.err


def talkative(epochs=2, batches=2):
    """An evaluator whose trainer has all of Lightning's defaults: bar, summary, logger, checkpoints."""
    made = toy_task.evaluator(epochs, batches)
    trainer = toy_task.Trainer(max_epochs=epochs, accelerator="cpu")
    loaders = {"train_dataloaders": made.train_dataloaders, "val_dataloaders": made.val_dataloaders}
    return toy_task.Lightning(toy_task.ToyModule(), trainer, **loaders)


def test_the_command_prints_its_table_and_nothing_of_lightnings(settings, tmp_path, monkeypatch, capfd):
    """230 lines of Lightning's and NNI's used to stand around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nni_dynconv.commands.shared.entering.os.chdir", lambda folder: None)
    class_args = {**CLASS_ARGS, "evaluator": f"{__name__}:talkative", "evaluator_args": {}}
    document = {"searchSpace": {}, "trialCommand": "python3 -m nni_dynconv.trial", "trialConcurrency": 1}
    document |= {"trialCodeDirectory": str(Path(__file__).parent), "trainingService": {"platform": "local"}}
    config = tmp_path / "rank.yml"
    tuner = {"name": "DynamicWeightMutator", "classArgs": class_args}
    config.write_text(yaml.safe_dump({**document, "tuner": tuner}))
    options = ["--architectures", "3", "--trained", "2", "--batches", "1"]
    assert cli.main(["rank", str(config), str(tmp_path / "supernet"), *options]) == 0
    output, error = capfd.readouterr()
    assert output.startswith("trained 1 of 2") and "Against `val_loss`" in output
    assert len(output.splitlines()) < 20
    assert all(line.startswith("  training, architecture") for line in error.splitlines())


def test_what_cannot_be_ranked_is_refused(settings, tmp_path):
    folder = tmp_path / "supernet"
    with pytest.raises(ConfigError, match="Ranking needs a `metric`"):
        rank({**settings, "metric": None}, folder)
    with pytest.raises(ConfigError, match="`start` is 'zero', but must be 'scratch' or 'generated'"):
        rank(settings, folder, start="zero")
    with pytest.raises(ConfigError, match="`batches` is 0, but must be 1 or more: a score is the mean loss on these"):
        rank(settings, folder, batches=0)
    with pytest.raises(RankError, match="1 of 4 architectures are to be trained; it must be two at least"):
        rank(settings, folder, architectures=4, trained=1)
    with pytest.raises(RankError, match="5 architectures are wanted, but 250 draws gave only 4 different ones"):
        rank(settings, folder, architectures=5, trained=2)


def test_an_evaluator_that_never_validates_is_told(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("nni_dynconv.experiments.trial.ReportMetric.last", lambda *args: None)
    with pytest.raises(RankError, match="The evaluator logged no `val_loss`"):
        rank(settings, tmp_path / "supernet", architectures=2, trained=2)


@pytest.fixture
def changed(monkeypatch):
    """Let the settings' evaluator have other data."""

    def change(**attributes):
        def evaluator(*args, **options):
            made = toy_task.evaluator(*args, **options)
            for name, make in attributes.items():
                setattr(made, name, make(made))
            return made

        monkeypatch.setattr(f"{__name__}.evaluator", evaluator, raising=False)
        return {"evaluator": f"{__name__}:evaluator"}

    return change


def test_an_evaluator_without_one_held_out_loader_is_told(settings, changed, tmp_path):
    """It used to end in `'NoneType' object is not iterable`, or in `too many values to unpack`."""
    options = {"architectures": 2, "trained": 2, "batches": 1}
    with pytest.raises(ConfigError, match="has no `val_dataloaders`, so there is nothing to score architectures with"):
        rank(settings | changed(val_dataloaders=lambda made: None), tmp_path / "supernet", **options)
    several = changed(val_dataloaders=lambda made: 2 * [made.val_dataloaders])
    with pytest.raises(
        ConfigError, match="has 2 loaders in a list as its `val_dataloaders`, but one is needed to score"
    ):
        rank(settings | several, tmp_path / "supernet", **options)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return toy_task.evaluator().train_dataloaders

    val_dataloader = train_dataloader


def test_a_data_module_serves_as_well(settings, changed, tmp_path):
    """It used to be left out."""
    without = dict.fromkeys(("train_dataloaders", "val_dataloaders"), lambda made: None)
    changes = changed(**without, datamodule=lambda made: Data())
    found = rank(settings | changes, tmp_path / "supernet", architectures=2, trained=2, batches=1)
    assert len(found.rows) == 2


def test_the_tables_leave_open_what_was_not_trained():
    rows = [Row({"op": "a"}, -0.1, 10, 0.9, 0.8), Row({"op": "b"}, -0.2, 1000)]
    one = fidelity([1, 2], [1, 2])
    found = SupernetRanking(rows, {"generated": one}, {"generated": 1.0}, "val_acc", "scratch")
    lines = str(found).splitlines()
    assert lines[1].split() == ["-0.1000", "0.8", "0.9", "10", "op", "=", "a"]
    assert lines[2].split() == ["-0.2000", "1,000", "op", "=", "b"]


def test_a_score_that_is_no_number_is_null_in_json():
    """It used to be `-Infinity`, which is no JSON."""
    rows = [Row({"op": "a"}, -0.1, 10, 0.9, 0.8), Row({"op": "b"}, float("-inf"), 1000, 0.8, float("nan"))]
    found = SupernetRanking(rows, {"generated": fidelity([1, 2], [1, 2])}, {}, "val_acc", "scratch")
    first, second = json.loads(found.to_json(), parse_constant=pytest.fail)["rows"]
    assert first["generated"] == -0.1 and second["generated"] is second["one_epoch"] is None


def test_the_table_says_of_which_few_there_is_no_interval():
    rows = [Row({"op": "a"}, -0.1, 10, 0.9, 0.8), Row({"op": "b"}, -0.2, 1000, 0.8, 0.8)]
    found = SupernetRanking(rows, {"generated": fidelity([1, 2], [1, 2])}, {}, "val_acc", "scratch")
    assert str(found).splitlines()[-1].split()[:4] == ["generated", "1.00", "too", "few"]


def test_a_result_that_is_missing_is_no_result_of_zero():
    rows = [Row({"op": name}, -0.1, 10, trained, 0.8) for name, trained in (("a", 0.9), ("b", 0.7), ("c", None))]
    with pytest.raises(RankError, match="3 scores cannot be compared with 2 results"):
        _fidelity(rows)
