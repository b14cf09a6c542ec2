"""`report`, `compare` and `export --to`: what they print, what they leave, and their status."""

from __future__ import annotations

import json

import pytest
import torch
from own_search import mutator_of

from nni_dynconv import export
from nni_dynconv.commands.cli import main
from nni_dynconv.runs import TRAINED, Run


@pytest.fixture
def run(tmp_path):
    """A run that knows its network and its result, and nothing else."""
    mutator = mutator_of().eval()
    sample = mutator.reset()
    run = Run(tmp_path / "mine")
    run.begin()
    export.save(mutator.freeze(sample), run.folder, example=(torch.randn(4, 1, 32), torch.rand(4, 2)))
    run.note(
        state=TRAINED, architecture=dict(sample), metric="val_acc", result=0.75, settings={"optimize_mode": "maximize"}
    )
    return run


def test_report_answers_on_the_terminal_and_writes_the_page(run, capsys):
    assert main(["report", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "What won? stem = " in said and "By how much? Not known: nothing was compared." in said
    assert run.report.is_file() and json.loads((run.folder / "report.json").read_text())["result"] == 0.75


def test_report_of_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "There is no run" in capsys.readouterr().err


def test_compare_prints_a_table_and_writes_a_page(run, tmp_path, capsys):
    Run(tmp_path / "cut").begin()
    page, data = tmp_path / "all.html", tmp_path / "all.json"
    status = main(["compare", str(run.folder), str(tmp_path / "cut"), "--output", str(page), "--json", str(data)])
    said = capsys.readouterr().out
    assert status == 0 and "cut: unfinished" in said and "None is called the best" in said
    assert "<table>" in page.read_text() and [one["name"] for one in json.loads(data.read_text())["rows"]] == [
        "mine",
        "cut",
    ]


def test_export_writes_a_program_that_torch_reads(run, capsys):
    assert main(["export", str(run.folder), "--to", "pt2", "--form", "baked"]) == 0
    assert "model-baked.pt2 (baked): x -> output; the same as torch for 1, 3, 17 samples" in capsys.readouterr().out
    program = torch.export.load(run.folder / "model-baked.pt2").module()
    assert program(torch.randn(5, 1, 32))[0].shape == (5, 3)
    assert json.loads((run.folder / "model-baked.pt2.json").read_text())["error"] < 1e-4


def test_export_to_another_format_needs_an_exported_network(tmp_path, capsys):
    Run(tmp_path / "cut").begin()
    assert main(["export", str(tmp_path / "cut"), "--to", "pt2"]) == 2
    assert "no example that can be read" in capsys.readouterr().err
