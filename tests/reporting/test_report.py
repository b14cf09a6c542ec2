"""A report as data: each number of it against where it comes from."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from own_search import mutator_of, searched
from PIL import Image

import nni_dynconv
from nni_dynconv import export, reporting
from nni_dynconv.errors import ConfigError, RunError, ShapeError
from nni_dynconv.reporting import add_slides, compare_runs, report_of, trials_csv
from nni_dynconv.reporting.answers import answers_to
from nni_dynconv.reporting.commands import experiment_of
from nni_dynconv.reporting.drawing import coloured, in_page, laid_out
from nni_dynconv.reporting.measuring import look_into, weights_of
from nni_dynconv.runs import Run
from nni_dynconv.search.closing import writing
from nni_dynconv.settings import check_class_args


@pytest.fixture(scope="module")
def report(run):
    return report_of(run)


def test_a_search_writes_its_page_and_the_data_of_it(run, report):
    told = json.loads((run / "report.json").read_text())
    assert told["result"] == report.result == Run(run).facts["result"]
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_what_was_searched_is_the_space_and_what_won_is_the_saved_network(run, report):
    choices = {one.label: one for one in report.searched.choices}
    assert {label: list(one.candidates) for label, one in choices.items()} == {
        "stem": ["wide3", "wide7"],
        "mid": ["static", "nothing"],
        "activation": ["relu", "tanh"],
    }
    assert {label: one.chosen for label, one in choices.items()} == nni_dynconv.load(run).architecture
    assert report.searched.architectures == 8 and report.searched.steps == 12 and report.searched.epochs == 2
    assert all(sum(one.probabilities) == pytest.approx(1.0, abs=1e-5) for one in choices.values())


def test_a_comparison_that_time_was_too_short_for_is_not_asked_for(report):
    """The page said to write `baselines: {}`, which the YAML had."""
    words = "The comparison with baselines was left out: it takes about 1735 s, and 1309 s were left."
    cut = dataclasses.replace(report, compared=None, cut=(words,))
    told = [line for one in answers_to(cut) for line in one.words]
    assert words in told and not [line for line in told if "baselines: {}" in line]
    told = [line for one in answers_to(dataclasses.replace(cut, cut=())) for line in one.words]
    assert any("baselines: {}" in line for line in told)


def test_costs_are_those_of_the_table_and_what_makes_weights_is_what_the_twin_saves(report):
    cost = report.network.cost
    saved, twin = (
        next(one for one in report.compared.rivals if one.kind == kind) for kind in ("went on", "static twin")
    )
    assert (cost.multiply_adds, cost.parameters) == (saved.multiply_adds, saved.parameters)
    assert cost.multiply_adds - cost.making == twin.multiply_adds
    assert cost.share == cost.making / cost.multiply_adds and cost.seconds > 0


def test_the_spread_is_that_of_the_random_architectures(report):
    values = [one.metrics["val_acc"] for one in report.compared.rivals if one.kind == "random"]
    spread = report.compared.spread["val_acc"]
    assert spread.count == 2 and spread.mean == pytest.approx(np.mean(values))
    assert spread.deviation == pytest.approx(np.std(values, ddof=1))


def test_the_re_ranking_tells_losses_before_and_after_and_who_is_exported(run, report):
    rows = report.reranked.rows
    assert len(rows) == 3 and report.reranked.steps == 4
    (exported,) = (one for one in rows if one.exported)
    assert exported.words == ", ".join(Run(run).facts["architecture"].values())
    assert exported.after == min(one.after for one in rows)


def test_the_sampler_is_followed_over_the_steps(report):
    steps = list(report.trace.steps)
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 12
    for table in report.trace.probabilities.values():
        assert np.allclose(np.sum(list(table.values()), axis=0), 1.0, atol=1e-5)


def test_epochs_are_told_apart_by_their_training(report):
    found = {(one.phase, one.metric): len(one.values) for one in report.curves}
    assert found["search", "val_acc"] == found["final training", "val_acc"] == 2


def test_findings_are_those_of_the_last_diagnosis(run, report):
    assert list(report.findings) == Run(run).history.of("diagnosis")[-1]["findings"]


# The weights


def test_weights_of_many_contexts_are_those_of_each_alone(run):
    network, call = nni_dynconv.load(run), export.example_in(run).call
    together = weights_of(network, call)
    for place in range(3):
        alone = weights_of(
            network, call._replace(args=(call.args[0][place : place + 1],), context=call.context[place : place + 1])
        )
        for site, tensors in together.items():
            for name, one in tensors.items():
                torch.testing.assert_close(one[place], alone[site][name])


def test_looking_into_a_network_leaves_it_as_it_was(run):
    network, shown = nni_dynconv.load(run), export.example_in(run)
    before = network(*shown.call.args, shown.call.context)
    look_into(network, shown)
    assert torch.equal(network(*shown.call.args, shown.call.context), before)
    assert "make_factored" not in vars(network.source)


def test_the_dependence_on_contexts_is_none_where_they_are_all_alike(run):
    network, shown = nni_dynconv.load(run), export.example_in(run)
    alike = shown.call._replace(context=shown.call.context[:1].expand_as(shown.call.context).clone())
    assert all(one.dependence > 1e-3 for one in look_into(network, shown).sites)
    assert all(one.dependence < 1e-6 for one in look_into(network, shown._replace(call=alike)).sites)


def test_weights_without_a_delta_are_the_same_for_all(tmp_path):
    mutator = mutator_of(per_site={"head": {"delta": "none"}}).eval()
    x, context = torch.randn(4, 1, 32), torch.rand(4, 2)
    mutator.reset()
    mutator(x, context=context)
    export.save(mutator.freeze(mutator.sample), tmp_path, example=(x, context))
    found = {one.name: one for one in look_into(nni_dynconv.load(tmp_path), export.example_in(tmp_path)).sites}
    assert found["head"].dependence is None and len(found["head"].pictures) == 1
    stem = next(one for name, one in found.items() if name.startswith("stem"))
    assert stem.dependence is not None and len(stem.pictures) == 4


@pytest.mark.parametrize(
    ("shape", "picture", "kernels"),
    [
        ((4, 2, 3, 3), (15, 7), (8, 8)),
        ((20, 30, 3, 3), (31, 31), (64, 600)),
        ((4, 2, 5), (7, 11), (8, 8)),
        ((4, 2, 3, 5, 5), (23, 11), (8, 8)),
        ((70, 3, 1, 1), (64, 3), (192, 210)),
        ((9,), (1, 9), (9, 9)),
        ((3, 6), (3, 6), (18, 18)),
    ],
)
def test_weights_of_any_shape_are_laid_out(shape, picture, kernels):
    laid, shown = laid_out(np.ones(shape))
    assert (laid.shape, shown) == (picture, kernels)


def test_a_picture_is_read_back_as_it_was(tmp_path):
    import base64

    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    for one in (pixels, pixels[..., 0]):
        (tmp_path / "one.png").write_bytes(base64.b64decode(in_page(one).partition(",")[2]))
        assert np.array_equal(np.array(Image.open(tmp_path / "one.png")), one)
    with pytest.raises(ShapeError, match="A picture is"):
        in_page(pixels.astype(float))


def test_colours_tell_sign_and_size():
    red, white, blue, grey = coloured(np.array([[1.0, 0.0, -1.0, np.nan]]), 1.0)[0, ::16].astype(int)
    assert red[0] > red[2] and blue[2] > blue[0] and min(white) > 240 and len(set(grey)) == 1


# What fails, and what is not there


def test_a_page_that_fails_leaves_the_run_as_it_is_and_is_noted(tmp_path, monkeypatch):
    def failing(folder):
        raise RuntimeError("no pen")

    monkeypatch.setattr(writing, "write_report", failing)
    strategy = searched(tmp_path / "run", baselines=None, diagnose_every=0)
    run = Run(tmp_path / "run")
    assert run.problems == {"page": "RuntimeError: no pen"} and strategy.network is not None
    assert nni_dynconv.load(run.folder).architecture == run.facts["architecture"]


def test_a_run_that_did_not_end_is_reported_as_such(tmp_path):
    Run(tmp_path / "run").begin()
    report = report_of(tmp_path / "run")
    assert report.state == "unfinished" and report.answers[-1].short.startswith("Start the run again")
    assert any("no exported network" in one for one in report.missing)
    reporting.write_report(tmp_path / "run")


def test_a_network_of_an_earlier_version_is_not_looked_into_and_that_is_said(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "network.json").write_text("{}")
    report = report_of(folder)
    assert report.network is None and any("cannot be looked into" in one for one in report.missing)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run"):
        report_of(tmp_path)


def test_slides_need_a_picture_for_each_caption(tmp_path):
    with pytest.raises(ConfigError, match="2 pictures, but there are 1 captions"):
        add_slides(tmp_path, "mine", ["a"], {"x": [np.zeros((2, 2), np.uint8)] * 2})


def test_slides_of_the_same_title_are_replaced(run, tmp_path):
    for shade in (0, 9):
        add_slides(tmp_path, "mine", ["a"], {"x": [np.full((2, 2), shade, np.uint8)]})
    (file,) = (tmp_path / "slides").iterdir()
    assert json.loads(file.read_text())["images"]["x"] == [in_page(np.full((2, 2), 9, np.uint8))]


def test_the_settings_of_the_page_are_an_experiment_that_passes_the_check():
    settings = check_class_args(
        {"mode": "one_shot", "space": "own_search:Waves", "evaluator": "own_search:evaluator"}, "here"
    )
    again = yaml.safe_load(experiment_of(settings.to_dict()))["tuner"]["classArgs"]
    assert check_class_args(again, "again").to_dict() == settings.to_dict()


# Several runs


@pytest.fixture
def three(run, tmp_path):
    """A run, a better one, one that did not end, and one of another task."""
    for name in ("better", "other"):
        shutil.copytree(run, tmp_path / name)
    facts = json.loads((tmp_path / "better" / "run.json").read_text())
    (tmp_path / "better" / "run.json").write_text(json.dumps({**facts, "result": 0.99}))
    (tmp_path / "other" / "run.json").write_text(json.dumps({**facts, "metric": "val_psnr", "result": 31.0}))
    Run(tmp_path / "cut").begin(settings={"metric": "val_acc"})
    return [run, tmp_path / "better", tmp_path / "cut", tmp_path / "other"]


def test_runs_are_put_beside_one_another_and_what_cannot_be_is_said(three):
    found = compare_runs(three)
    assert found.best.name == "better" and [one.comparable for one in found.rows] == [True, True, False, False]
    text = str(found)
    assert "cut: unfinished: its search did not end" in text
    assert "other: another task: metric `val_psnr` instead of `val_acc`" in text and "better *" in text


def test_runs_of_other_inputs_are_of_another_task(run, tmp_path):
    network = nni_dynconv.load(run)
    shutil.copytree(run, tmp_path / "long")
    export.save(network, tmp_path / "long", example=(torch.randn(4, 1, 48), torch.rand(4, 2)))
    found = compare_runs([run, tmp_path / "long"])
    assert "another task: inputs `x B 1 48 float32" in str(found) and found.best is None


def test_trials_have_a_column_for_each_part_of_settings_and_architecture():
    text = trials_csv(
        [{"trial": "a", "result": 0.5, "architecture": {"op": "x, y"}}, {"trial": "b", "architecture": None}]
    )
    first, second = csv.DictReader(text.splitlines())
    assert first["architecture.op"] == "x, y" and second["result"] == ""


def test_what_few_sets_of_weights_lose_is_told(run, tmp_path):
    few = report_of(run).few
    assert few.counts == [1, 2, 4] and few.contexts == 96 and set(few.metrics) == {"val_acc"}
    for value, gap in zip(few.metrics["val_acc"], few.gaps["val_acc"], strict=True):
        assert few.dynamic["val_acc"] - value == pytest.approx(gap)
    fit = [one for one, gap in zip(few.counts, few.gaps["val_acc"], strict=True) if gap <= few.allowed["val_acc"]]
    assert few.recommended == (fit[0] if fit else None)
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "clusters.json").unlink()
    assert any(one.startswith("Few sets of weights: not tried") for one in report_of(tmp_path / "run").missing)
