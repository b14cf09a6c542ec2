"""The house is as `docs/architecture.md` says: wings, doors, faces, and walls that hold."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nni_dynconv

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nni_dynconv"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
DOORS = sorted(path.stem for path in PACKAGE.glob("*.py") if path.read_text(encoding="utf-8").startswith('"""A door'))
KNOWN = [
    "calibration",
    "context",
    "controllers",
    "distributed",
    "errors",
    "export",
    "functional",
    "lifting",
    "nni2",
    "ops",
    "ranking",
    "samplers",
    "search_space",
    "spec",
    "testing",
    "trial",
    "tuner",
]


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_few_modules_stand_beside_the_wings_and_doors():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", *DOORS}
    assert modules == {"errors", "files", "processes"}


@pytest.mark.parametrize("name", DOORS)
def test_a_door_only_hands_on(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    start = "if __name__ == '__main__':\n    main(sys.argv[1:])"  # `python3 -m nni_dynconv.trial`
    further = [one for one in tree.body[1:] if not isinstance(one, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(one) for one in further] == ([start] if name == "trial" else [])


@pytest.mark.parametrize("name", KNOWN)
def test_every_path_that_users_know_is_there(name):
    module = importlib.import_module(f"nni_dynconv.{name}")
    assert module.__all__ and all(hasattr(module, one) for one in module.__all__)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}), ids=lambda p: p.name
)
def test_no_floor_of_a_wing_is_crowded(folder):
    assert len(list(folder.glob("*.py"))) <= 16


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_what_lives_there_and_what_does_not(wing):
    text = docstring(PACKAGE / wing / "__init__.py")
    assert len(re.findall(r"[.:](?:\s|$)", text)) >= 2 and re.search(
        r"\bno\b|\bnot\b|\bnothing\b|\bnone\b|\bonly\b|\bneither\b", text.lower()
    )


@pytest.mark.parametrize("wing", WINGS)
def test_the_architecture_page_has_every_wing_with_its_files(wing):
    (row,) = re.findall(rf"^\| `{wing}/` \|.*$", PAGE, re.MULTILINE)
    named = set(re.findall(r"`([\w/]+)`", row))
    files = {path.stem for path in (PACKAGE / wing).glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in (PACKAGE / wing).glob("*/__init__.py")}
    assert {one for one in files | {f"{name}/" for name in folders} if one not in named} == set()


def test_the_architecture_page_names_every_door():
    (line,) = re.findall(r"^Doors: (.*(?:\n.+)*)", PAGE, re.MULTILINE)
    assert {f"nni_dynconv.{name}" for name in DOORS} <= set(re.findall(r"`([\w.]+)`", line))


def imports_of(path):
    """Pairs of level and module of the imports of a file within the package."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [(node.level, node.module or "") for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def test_a_file_reaches_into_another_wing_through_its_face():
    past = []
    for path in PACKAGE.glob("*/**/*.py"):
        parts = path.relative_to(PACKAGE).parts
        for level, module in imports_of(path):
            if level == len(parts) and "." in module and module.split(".")[0] != parts[0]:
                past.append(f"{path.relative_to(PACKAGE)}: {module}")
    assert not past


def test_tests_mirror_the_wings():
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert folders - set(WINGS) == {"end_to_end", "faults", "project"}
    assert set(WINGS) - folders <= {"testing"}  # whose suites the tests of ops, samplers and controllers inherit
    assert not list((ROOT / "tests").glob("test_*.py"))


def test_the_picture_of_the_wings_is_not_stale():
    drawing = load_script("draw_wings")
    (kept,) = re.findall(r"<dc:description>(.*?)</dc:description>", drawing.PICTURE.read_text(encoding="utf-8"))
    drawn = [tuple(pair) for pair in json.loads(kept.replace("&quot;", '"'))]
    assert drawn == drawing.arrows(), "python docs/draw_wings.py"
    assert f"img/{drawing.PICTURE.name}" in PAGE


def lint(folder):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("sites/spec.py", "from ..supernet import DynamicWeightMutator", "nni_dynconv.sites is not allowed to import"),
        ("settings/references.py", "import torch", "nni_dynconv.settings is not allowed to import torch"),
        ("experiments/recovery.py", "import torch", "nni_dynconv.tuner is not allowed to import torch"),
    ],
)
def test_the_walls_hold(file, line, broken, tmp_path):
    """Planted once each: a lower wing that imports a higher one, and torch where it must not be."""
    shutil.copytree(PACKAGE, tmp_path / "nni_dynconv", ignore=shutil.ignore_patterns("_kernels*", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "nni_dynconv" / file
    planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1 and broken in done.stdout, done.stdout


def test_the_public_names_have_homes_that_exist():
    for name in nni_dynconv.__all__:
        assert getattr(nni_dynconv, name) is not None
