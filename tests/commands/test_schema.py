"""The command `schema` gives the schema that ships, on the standard output or into a file."""

from __future__ import annotations

import json

from nni_dynconv.commands import cli
from nni_dynconv.settings import experiment_schema


def test_it_prints_json_and_nothing_else(capsys):
    assert cli.main(["schema"]) == 0
    output, error = capsys.readouterr()
    assert json.loads(output) == experiment_schema() and not error


def test_it_writes_a_file_and_prints_nothing(tmp_path, capsys):
    assert cli.main(["schema", "--output", str(tmp_path / "schema.json")]) == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == experiment_schema()
    assert capsys.readouterr() == ("", "")


def test_a_folder_that_is_not_there_is_told(tmp_path, capsys):
    assert cli.main(["schema", "--output", str(tmp_path / "none" / "schema.json")]) == 2
    assert "schema.json: No such file or directory." in capsys.readouterr().err
