"""Diagnosis during a search, by the callback, and of an experiment, by `nni-dynconv doctor`."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.experiment import NasExperiment

from nni_dynconv import ChunkedController, DiagnosisCallback, DynamicWeightMutator, EnasSampler, GdasSampler, export
from nni_dynconv.commands import cli
from nni_dynconv.commands.examining import examine
from nni_dynconv.diagnosis import DiagnosisWarning
from nni_dynconv.errors import ConfigError, ExportError


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    monkeypatch.chdir(tmp_path)  # the command changes into the trials' folder
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    logging.getLogger("nni").handlers.clear()


class ZeroController(ChunkedController):
    def generate(self, sites, context):
        return [0 * one for one in super().generate(sites, context)]


def search(mutator, callbacks=(), **options):
    task = evaluator(epochs=2, batches=4)
    task.trainer.callbacks += callbacks
    NasExperiment(mutator.space, task, mutator.strategy(contenders=2, rerank=0, **options)).run()
    return task.trainer


def toy(sampler=GdasSampler, **options):
    torch.manual_seed(0)
    return DynamicWeightMutator(ToySpace(), sampler=sampler(seed=0), **options)


# What is written of `benchmarks/quality/doctor.json`


ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "quality" / "doctor.json").read_text(encoding="utf-8"))


def rounded(value):
    return float(f"{value:.2g}")


def test_the_healthy_values_beside_the_thresholds_are_those_that_were_measured():
    """Some used to be of runs that no file holds."""
    ranges = [*MEASURED["healthy"].values()]
    for reading in ("gradient of candidates", "gradient into the context", "entropy of choices"):
        both = [MEASURED["healthy"][f"{when}: {reading}"] for when in ("start", "training")]
        ranges.append([min(low for low, _ in both), max(high for _, high in both)])
    known = {tuple(map(rounded, one)) for one in ranges}
    text = (ROOT / "nni_dynconv" / "diagnosis" / "thresholds.py").read_text(encoding="utf-8")
    comments = re.findall(r"^[A-Z_]+ = .*?  # (.*)$", text, re.MULTILINE)
    quoted = [pair for comment in comments for pair in re.findall(r"(\d[\d.]*) to (\d[\d.]*\d|\d)", comment)]
    assert len(quoted) >= 12 and {tuple(map(float, pair)) for pair in quoted} <= known


def test_the_guide_says_of_healthy_runs_what_was_measured():
    text = " ".join((ROOT / "docs" / "trust.md").read_text(encoding="utf-8").split())
    for reading, words in (
        ("weights over static", "scales up to {} times"),
        ("gain over static", "gains up to {} times"),
    ):
        assert words.format(rounded(MEASURED["healthy"][f"training: {reading}"][1])) in text
    assert f"healthy runs of `benchmarks/quality/doctor.json`, of {MEASURED['steps']} steps" in text
    healthy = [row for row in MEASURED["rows"] if row["wanted"] is None]
    told = [(row["space"], row["planted"], row["told"]) for row in healthy if row["told"]]
    assert not told
    assert f"Of its {len(healthy)} healthy runs" in text and f"silent about {len(healthy)}." in text


# During a search


def test_the_callback_diagnoses_at_the_start_and_after_each_epoch_and_is_silent_on_a_healthy_run():
    callback = DiagnosisCallback()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DiagnosisWarning)
        trainer = search(toy(), [callback])
    assert [one.progress for one in callback.diagnoses] == [0.0, 0.5, 1.0]
    assert trainer.callback_metrics["diagnosis/faults"] == 0
    assert callback.diagnoses[0].loss != callback.diagnoses[-1].loss


def test_the_callback_does_not_change_the_search():
    torch.manual_seed(1)
    without = toy()
    search(without)
    torch.manual_seed(1)
    watched = toy()
    search(watched, [DiagnosisCallback()])
    for (name, one), (_, other) in zip(without.space.named_parameters(), watched.space.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_fault_is_warned_of_once():
    with pytest.warns(DiagnosisWarning, match=r"(?s)at 0% of the search.*controller-zero at `controller`") as caught:
        trainer = search(toy(EnasSampler, controller=ZeroController()), [DiagnosisCallback()])
    told = [str(one.message) for one in caught if one.category is DiagnosisWarning]
    assert sum("controller-zero" in one for one in told) == 1
    assert trainer.callback_metrics["diagnosis/faults"] >= 1


def test_the_strategy_brings_the_callback_when_it_is_asked_to():
    with pytest.warns(DiagnosisWarning, match="controller-zero"):
        trainer = search(toy(controller=ZeroController()), diagnose_every=2)
    (callback,) = [one for one in trainer.callbacks if isinstance(one, DiagnosisCallback)]
    assert [one.progress for one in callback.diagnoses] == [0.0, 1.0]


def test_a_callback_without_a_mutator_says_what_to_give():
    callback = DiagnosisCallback()
    task = evaluator(epochs=1, batches=1)
    task.trainer.callbacks.append(callback)
    with pytest.raises(ConfigError, match=r"ToyModule has none. Give it: `DiagnosisCallback\(mutator=mutator\)`"):
        task.evaluate(torch.nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("name", ["every_n_epochs", "batches"])
def test_the_callback_refuses_what_would_never_run(name):
    with pytest.raises(ConfigError, match=f"`{name}` of DiagnosisCallback is 0, but must be 1 or more"):
        DiagnosisCallback(**{name: 0})


# Of an experiment


@pytest.fixture
def config(tmp_path):
    def write(**class_args):
        settings = {"mode": "one_shot", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
        document = {
            "trialCommand": "python3 -m nni_dynconv.trial",
            "trialCodeDirectory": str(Path(__file__).parents[1]),
            "trialConcurrency": 1,
            "maxTrialNumber": 1,
            "trainingService": {"platform": "local"},
            "searchSpace": {},
            "tuner": {"name": "DynamicWeightMutator", "classArgs": settings | class_args},
        }
        path = tmp_path / "x.yml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def test_the_command_prints_a_report_of_a_healthy_experiment(config, capsys, tmp_path):
    report = tmp_path / "report.json"
    assert cli.main(["doctor", str(config()), "--batches", "2", "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "at 0% of the search" in printed
    assert "first/3" in printed
    assert json.loads(report.read_text())["findings"] == []


def test_json_for_the_standard_output_stands_alone_there(config, capsys):
    assert cli.main(["doctor", str(config()), "--batches", "2", "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["findings"] == [] and "at 0% of the search" in printed.err


def test_a_report_lies_where_the_command_was_called(config, tmp_path):
    assert cli.main(["doctor", str(config()), "--batches", "1", "--json", "report.json"]) == 0
    assert (tmp_path / "report.json").is_file()


def test_the_command_ends_with_status_1_where_a_fault_is_found(config, capsys):
    path = config(controller=f"{__name__}:ZeroController")
    assert cli.main(["doctor", str(path)]) == 1
    assert "fault controller-zero at `controller`" in capsys.readouterr().out
    assert cli.main(["doctor", str(path), "--ignore", "controller-zero"]) == 0


def test_the_command_takes_the_weights_of_a_finished_run(config, capsys, tmp_path):
    mutator = toy()
    for one in mutator.controller.parameters():
        one.data.zero_()
    export.save_supernet(mutator, tmp_path / "run" / "supernet")
    for folder in (tmp_path / "run", tmp_path / "run" / "supernet"):
        assert cli.main(["doctor", str(config()), "--run", str(folder)]) == 1
        assert "at 100% of the search" in capsys.readouterr().out
    assert cli.main(["doctor", str(config()), "--run", str(tmp_path)]) == 2
    assert "There is no supernet that can be read" in capsys.readouterr().err


def test_an_evaluator_without_training_batches_is_told(monkeypatch):
    def without():
        made = evaluator()
        made.train_dataloaders = None
        return made

    monkeypatch.setattr("toy_task.evaluator", without)
    settings = {"mode": "one_shot", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
    with pytest.raises(ConfigError, match="has no `train_dataloaders`, so there is nothing to diagnose with"):
        examine(settings)


def test_a_data_module_serves_as_well(monkeypatch):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return evaluator().train_dataloaders

    def with_module():
        made = evaluator()
        made.train_dataloaders, made.datamodule = None, Data()
        return made

    monkeypatch.setattr("toy_task.evaluator", with_module)
    assert examine({"mode": "one_shot", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}).runs > 0


def test_a_run_that_is_none_is_told(tmp_path):
    settings = {"mode": "one_shot", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
    with pytest.raises(ExportError, match="There is no supernet that can be read"):
        examine(settings, tmp_path)
