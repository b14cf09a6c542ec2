"""A damaged state of the tuner is not believed: the one before is taken, or it is refused in words."""

from __future__ import annotations

import json

import pytest

from nni_dynconv.errors import RunError
from nni_dynconv.experiments.state import is_there, read_state, write_state

STATES = [json.dumps({"number": number}).encode() for number in range(3)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.state"
    for one in STATES[:2]:
        write_state(path, one)
    return path


def read(path, said=None):
    return read_state(path, json.loads, [].append if said is None else said.append)


def test_the_newest_is_read_and_the_one_before_where_that_is_damaged_and_that_is_said(path):
    said = []
    assert read(path, said)["number"] == 1 and not said
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path, said)["number"] == 0
    assert "it is damaged: its checksum" in said[0] and "The state before it is taken" in said[0]


def test_a_newest_that_is_gone_leaves_the_one_before(path):
    path.unlink()
    assert is_there(path) and read(path)["number"] == 0


def test_a_damaged_state_never_becomes_the_one_before(path):
    path.write_bytes(b"torn")
    write_state(path, STATES[2])
    path.write_bytes(b"torn")
    assert read(path)["number"] == 0


def test_two_damaged_ones_are_refused_and_say_the_way_out(path, tmp_path):
    for one in tmp_path.iterdir():
        one.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"The tuner's state cannot be read(.|\n)*Start the experiment anew"):
        read(path)


def test_a_newer_version_is_told_so(path, tmp_path):
    (tmp_path / "a.state.before").unlink()
    path.write_bytes(path.read_bytes().replace(b"state 2 ", b"state 3 "))
    with pytest.raises(RunError, match="has format 3, but this version reads 2. If a newer version wrote it, update"):
        read(path)


def test_files_of_version_0_1_0_have_no_checksum_and_are_read(tmp_path):
    (tmp_path / "a.state").write_bytes(STATES[0])
    assert read(tmp_path / "a.state")["number"] == 0
    (tmp_path / "a.state").write_bytes(STATES[0][:-1])
    with pytest.raises(RunError, match="is damaged: JSONDecodeError"):
        read(tmp_path / "a.state")


def test_a_disk_that_is_full_is_told_and_harms_nothing(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nni_dynconv.files.write_whole", full)
    with pytest.raises(RunError, match=r"cannot be written: .*No space left on device\nIt is as it was. Make room"):
        write_state(path, STATES[2])
    monkeypatch.undo()
    assert read(path)["number"] == 1
