"""The table of controllers in the guide says what `benchmarks/quality/` measured, and the bars are held."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from inspect import getdoc
from pathlib import Path

import pytest

from benchmarks.quality import initialisation
from nni_dynconv import ChunkedController, FlatController
from nni_dynconv.settings import TABLES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "quality"

MISSED = {("flat", "learned", "full")}  # one gain, of the last linear map with one seed, as the guide says


def measured(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def rows_of_the_guide():
    text = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    table = re.search(r"(?:^\|.*\n)+", text[text.index("<!-- table: controllers -->") :], re.MULTILINE).group(0)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def gains(name):
    return [
        one for one in measured("initialisation.json")["rows"] if one["ours"] and one["controller"].startswith(name)
    ]


def test_the_bars_are_held():
    table = measured("initialisation.json")
    ours = [one for one in table["rows"] if one["ours"]]
    outside = {(one["controller"], one["base"], one["delta"]) for one in ours if one["least"] < 0.5 or one["most"] > 2}
    assert outside == MISSED and table["holds"] == (not MISSED)
    assert table["architectures"] >= 100 and len(table["seeds"]) >= 3
    known = [(one.name, one.base, one.delta) for one in initialisation.contenders() if one.ours]
    assert [(one["controller"], one["base"], one["delta"]) for one in ours] == known
    plain = next(one for one in table["rows"] if one["controller"] == "chunked, torch's default init")
    assert plain["outside"] > plain["gains"] / 3
    sizes = measured("controller_sizes.json")["rows"]
    assert max(sizes["chunked"]["ratio"], sizes["low_rank"]["ratio"]) < 0.3 < sizes["flat"]["ratio"]


def test_the_guide_has_the_numbers_that_were_measured():
    sizes, rows = measured("controller_sizes.json")["rows"], rows_of_the_guide()
    assert list(rows) == list(TABLES["controller"])
    for name, (parameters, gain, cost, time, _) in rows.items():
        own = sizes[name]
        assert parameters == f"{own['ratio']:.2f}"
        assert cost == f"{own['multiply-adds a weight, 1 set']:.0f}"
        assert time == " / ".join(f"{own[f'time over chunked{chr(39)}s, {sets} sets']:.2f}" for sets in (1, 8))
        least, most = min(one["least"] for one in gains(name)), max(one["most"] for one in gains(name))
        assert gain == f"{least:.2f} to {most:.2f}"


def test_the_docstrings_have_the_numbers_that_were_measured():
    """The flat controller's used to be larger, and the sums without signs smaller, than what was measured."""
    sizes = measured("controller_sizes.json")["rows"]
    flat, chunked = (" ".join(getdoc(one).split()) for one in (FlatController, ChunkedController))
    assert f"{sizes['flat']['ratio to all candidates']:.0f} times as many parameters" in flat
    fewer = [name for name, one in sizes.items() if one["ratio to all candidates"] < 1]
    assert {name.split(",")[0] for name in sizes} - {name.split(",")[0] for name in fewer} == {"flat", "experts"}
    rows = {one["controller"]: one for one in measured("initialisation.json")["rows"]}
    assert (
        round(rows["chunked without signs (version 0.1.0)"]["most"]) == 7 and "up to seven times too large" in chunked
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("initialisation.py", "--architectures", "3", "--seeds", "0", "--only", "low_rank"), "every gain of 5 pairs"),
        (("controller_sizes.py", "--rounds", "1"), "chunked and low_rank: below 0.3"),
    ],
)
def test_the_commands_run(command, words, tmp_path):
    output = tmp_path / "table.json"
    name, *options = command
    ran = subprocess.run(
        [sys.executable, FOLDER / name, *options, "--output", output], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert words in ran.stdout
    assert json.loads(output.read_text())["holds"]
