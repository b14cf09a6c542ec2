"""The folder of a run: what it says, what a new run removes, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.errors import RunError
from nni_dynconv.runs import TRAINED, UNTRAINED, Run


def test_facts_add_up_and_are_read_back(tmp_path):
    run = Run(tmp_path / "deep" / "run")
    run.begin(settings={"seed": 3})
    run.note(state=UNTRAINED, architecture={"op": "conv3"})
    run.note(state=TRAINED)
    facts = Run.read(run.folder).facts
    assert facts == {"format": 1, "settings": {"seed": 3}, "state": "trained", "architecture": {"op": "conv3"}}


def test_a_new_run_removes_what_an_earlier_one_wrote_and_nothing_else(tmp_path):
    run = Run(tmp_path)
    run.begin()
    run.supernet.mkdir()
    for one in (run.weights, run.network, run.table, run.supernet / "supernet.json", tmp_path / "mine.txt"):
        one.write_text("{}")
    run.note(result=0.5)
    Run(tmp_path).begin()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.txt", "run.json"]
    assert Run.read(tmp_path).facts == {"format": 1}


def test_a_folder_without_a_run_is_refused_with_the_ways_to_make_one(tmp_path):
    with pytest.raises(
        RunError, match=r"There is no run in .*launch CONFIG --output.*`mutator.strategy\(folder=...\)`"
    ):
        Run.read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "trained"}', "\x00"])
def test_a_damaged_file_is_refused_by_name(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json` cannot be read"):
        Run(tmp_path)


def test_another_format_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="has format 99, but this version reads 1"):
        Run(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="A run is a folder"):
        Run(tmp_path / "file").begin()


def test_a_supernet_lies_in_a_run_or_is_the_folder_itself(tmp_path):
    assert Run.supernet_in(tmp_path) == tmp_path
    (tmp_path / "supernet").mkdir()
    assert Run.supernet_in(tmp_path) == tmp_path / "supernet"


def test_what_is_left_to_do_is_told_with_its_command(tmp_path):
    run = Run(tmp_path)
    run.begin(state=UNTRAINED)
    run.mark("export", "ExportError: no graph")
    told = "\n".join(run.told("runs/mine"))
    assert "NOT trained to the end. `nni-dynconv train runs/mine`" in told
    assert "FAILED: export: ExportError: no graph" in told and "`nni-dynconv export runs/mine`" in told
    run.note(state=TRAINED)
    run.mark("export", None)
    assert run.told() == []


@settings(max_examples=30, deadline=None)  # each writes files
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_a_problem_stands_until_it_is_taken_back(marks):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run, expected = Run(folder), {}
        run.begin()
        for what, failed in marks:
            run.mark(what, f"why {what}" if failed else None)
            expected[what] = failed
        assert run.problems == {what: f"why {what}" for what, failed in expected.items() if failed}
        assert Run.read(folder).problems == run.problems


def test_how_its_network_is_read_is_told_with_the_trust_that_it_takes(tmp_path):
    """Of a network that is kept by its class `launch` used to tell a line that raised an error."""
    run = Run(tmp_path)
    run.begin(code_directory="code")
    run.network.write_text('{"trust": ["space"]}')
    assert run.use("runs/mine") == 'import nni_dynconv  # in code\nnet = nni_dynconv.load("runs/mine", trust=["space"])'
    run.network.write_text("{}")  # of an earlier version
    assert run.use().endswith(f'load("{tmp_path}")')


def test_a_flipped_bit_in_the_architecture_is_not_believed(tmp_path):
    """It made another architecture, whose weights have the same shapes: `1` and `3` are a bit apart."""
    run = Run(tmp_path)
    run.begin()
    run.write_architecture({"op": "conv3"})
    run.note(state=UNTRAINED, architecture={"op": "conv3"})
    assert Run.read(tmp_path).architecture == {"op": "conv3"}
    run.file.write_text(run.file.read_text().replace("conv3", "conv1"))
    with pytest.raises(RunError, match=r"found \{'op': 'conv1'\}, but `.*architecture.json` says \{'op': 'conv3'\}"):
        _ = Run.read(tmp_path).architecture
    (tmp_path / "architecture.json").write_text("{")
    with pytest.raises(RunError, match=r"architecture.json` cannot be read: JSONDecodeError"):
        _ = Run.read(tmp_path).architecture


def test_what_time_was_too_short_for_is_told_before_what_failed(tmp_path):
    run = Run(tmp_path)
    run.begin()
    run.note(state=TRAINED, cut=["The search was ended."])
    run.mark("report", "no printer")
    assert run.told() == ["CUT: The search was ended.", "FAILED: report: no printer"]
