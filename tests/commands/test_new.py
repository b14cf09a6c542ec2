"""What `nni-dynconv new` writes runs as it stands, outside the clone."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nni_runs import REPOSITORY, Lab
from often import by_default

import nni_dynconv
from nni_dynconv.commands import cli
from nni_dynconv.commands.starting.new import TEMPLATES, Task
from nni_dynconv.experiments import trial
from nni_dynconv.settings import check_config

TASKS = [task.value for task in Task]
FILES = ["README.md", "data.py", "evaluator.py", "experiment.yml", "space.py", "test_experiment.py"]
HEAVY = pytest.mark.parametrize("project", by_default(TASKS[0], of=TASKS), indirect=True)
LEAST = {"image": 0.9, "sequence": 0.9, "video": 18.0}
"""Right digits, right symbols, and PSNR in dB, of a frame that had 12.5."""


@pytest.fixture(params=TASKS)
def project(request, tmp_path, monkeypatch):
    """A project of each task, in whose folder we are."""
    assert cli.main(["new", str(tmp_path / "mine"), "--task", request.param]) == 0
    monkeypatch.chdir(tmp_path / "mine")
    return Path.cwd()


@pytest.fixture
def importable(project, monkeypatch):
    """Its modules can be imported as in a trial, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(project)
    yield
    for name in ("data", "space", "evaluator", "test_experiment"):
        sys.modules.pop(name, None)


def test_its_files_are_there_and_its_experiment_is_well_formed(project, capsys):
    assert sorted(path.name for path in project.iterdir()) == FILES
    assert cli.main(["check", "experiment.yml"]) == 0
    assert "experiment.yml is well-formed." in capsys.readouterr().out


@HEAVY
@pytest.mark.usefixtures("importable")
def test_its_own_tests_pass(tmp_path):
    tests = [one for name, one in vars(importlib.import_module("test_experiment")).items() if name.startswith("test_")]
    assert len(tests) == 3
    for one in tests:
        one(**dict.fromkeys(inspect.signature(one).parameters, tmp_path / "saved"))


@pytest.mark.whole
@pytest.mark.parametrize("project", by_default(TASKS[0], of=TASKS, otherwise="slow"), indirect=True)
@pytest.mark.usefixtures("importable")
def test_a_trial_of_it_ends_in_a_network_that_follows_its_context(project):
    settings = check_config("experiment.yml").to_dict()
    short = {"limit_train_batches": 2, "limit_val_batches": 2, "enable_progress_bar": False}
    settings["evaluator_args"] = {"epochs": 1, **short}
    settings["strategy"] = {"final_epochs": 1, "contenders": 2, "contender_batches": 1, "rerank": 0}
    trial.search({**settings, "baselines": None}, project)
    network = nni_dynconv.load(project)
    (x, context), _ = next(iter(importlib.import_module("data").loaders(8)[2]))
    with torch.no_grad():
        assert not torch.allclose(network(x, context), network(x, context.flip(0)))


def test_what_is_to_be_changed_says_so_and_names_nothing_of_the_clone(project):
    for name in FILES:
        text = (project / name).read_text(encoding="utf-8")
        assert ("YOURS" in text) == (name != "test_experiment.py")
        assert not re.search(r"examples|configs/|docs/", text)
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 30
    assert set(re.findall(r"`(\w+\.\w+)`", readme)) == set(FILES) - {"README.md"}


@pytest.mark.parametrize("inside", ["mine/notes.txt", "mine"])
def test_a_folder_that_has_something_in_it_is_left_alone(inside, tmp_path, capsys):
    path = tmp_path / inside
    path.parent.mkdir(exist_ok=True)
    path.write_text("kept")
    assert cli.main(["new", str(tmp_path / "mine")]) == 2
    told = "mine is not empty. Name a folder that is, or one that is not there yet."
    assert told in capsys.readouterr().err
    assert path.read_text() == "kept" and [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_an_empty_folder_is_taken_and_an_unknown_task_is_refused(tmp_path, capsys):
    assert cli.main(["new", str(tmp_path)]) == 0
    assert "nni-dynconv launch experiment.yml" in capsys.readouterr().out
    assert cli.main(["new", str(tmp_path / "other"), "--task", "vidoe"]) == 2
    assert "'vidoe' is not one of 'image', 'sequence', 'video'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["new", str(tmp_path / "file" / "mine")]) == 2
    assert re.search(r"Cannot write into .*file/mine: .*Not a directory", capsys.readouterr().err)


def test_the_templates_are_installed_with_the_package(tmp_path):
    """They are no modules of the package, which `packages = find:` would see."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, clone)
    (clone / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    shutil.copytree(REPOSITORY / "nni_dynconv" / "commands", clone / "nni_dynconv" / "commands")
    (clone / "nni_dynconv" / "__init__.py").touch()
    run = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "built")]
    subprocess.run(run, cwd=clone, check=True, capture_output=True)
    built = tmp_path / "built" / TEMPLATES.relative_to(REPOSITORY)
    for task in TASKS:
        assert sorted(path.name for path in (built / task).iterdir() if path.is_file()) == FILES


@pytest.mark.slow
@pytest.mark.nnictl
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", TASKS)
def test_launched_outside_the_clone_it_ends_in_a_network_no_worse_than_its_static_twin(task, tmp_path):
    lab, mine = Lab(tmp_path), tmp_path / "mine"
    try:
        assert lab.run("new", "mine", "--task", task)[0] == 0
        run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(run, cwd=mine, env=lab.environment, capture_output=True, text=True)
        assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
        status, output, error = lab.run("launch", "mine/experiment.yml", "--output", "mine/runs/first", timeout=1500)
    finally:
        lab.end_processes()
    assert status == 0, output + error
    assert "The search itself, against the mean of 2 random architectures" in output
    saved, _, twin, *_ = json.loads((mine / "runs/first/baselines.json").read_text())["entries"]
    (metric,) = saved["metrics"]
    assert saved["metrics"][metric] >= max(twin["metrics"][metric], LEAST[task])
    assert nni_dynconv.load(mine / "runs/first").architecture == saved["architecture"]
