"""Plain `nnictl` runs the project's YAMLs, and a stopped multi-trial experiment goes on as it was."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import psutil
import pytest
import yaml
from nni.tools.nnictl import config_utils
from nni_runs import REPOSITORY, Lab, Run, ask, wait_until

from nni_dynconv.errors import LaunchError
from nni_dynconv.launching.launch import resume
from nni_dynconv.launching.nnictl import choose_port
from nni_dynconv.samplers import choices_of
from nni_dynconv.settings import check_config

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yml"))


@pytest.fixture
def lab(lab):
    assert lab.run("register")[0] == 0
    return lab


def shortened(path: Path, lab: Lab, **changes) -> Path:
    """Copy a YAML of the project into the lab, with an evaluator of seconds."""
    document = yaml.safe_load(path.read_text())
    document["trialCodeDirectory"] = str((path.parent / document["trialCodeDirectory"]).resolve())
    document["experimentWorkingDirectory"] = str(lab.folder / "experiments")
    class_args = document["tuner"]["classArgs"]
    class_args["evaluator_args"] = {"epochs": 1, "batches": 2, "batch_size": 4}
    if class_args["mode"] == "multi_trial":
        class_args["checkpoint"] = str(lab.folder / "shared")
    if "report" in class_args:
        class_args["report_args"] = {"steps": 2}
    target = lab.folder / path.name
    target.write_text(yaml.safe_dump({**document, **changes}))
    return target


@pytest.mark.nnictl
@pytest.mark.parametrize(
    "path",
    [one if one.name == "one_shot.yml" else pytest.param(one, marks=pytest.mark.slow) for one in CONFIGS],
    ids=lambda path: path.name,
)
def test_every_yaml_of_the_project_runs_to_its_end(path, lab):
    target = shortened(path, lab, maxTrialNumber=1 if path.name == "one_shot.yml" else 2)
    if check_config(target, checkpoint_needed=False).checkpoint:
        status, _, error = lab.run("warmup", target, timeout=200)
        assert status == 0, error
    run = Run(lab, "create", "--config", target)
    try:
        results = run.wait_for_end(200)
        for job in results:
            assert (Path(job["logPath"]) / "architecture.json").is_file()
        assert len(results) == len(run.jobs())
    finally:
        run.stop()


@pytest.mark.nnictl
@pytest.mark.parametrize("sampler", [pytest.param("random", marks=pytest.mark.slow), "enas"])
def test_a_multi_trial_experiment_that_is_stopped_and_resumed_goes_on_as_it_was(sampler, lab):
    shutil.copy(Path(__file__).parents[1] / "toy_task.py", lab.folder)
    (lab.folder / "shared.pt").touch()
    named = {"mode": "multi_trial", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
    schedule = {"entropy_weight_end": 0.0} if sampler == "enas" else {}  # refused where NNI tells no `maxTrialNumber`
    settings = {**named, "sampler": {"name": sampler, "seed": 1, **schedule}, "checkpoint": "shared.pt"}
    path = lab.write(settings, maxTrialNumber=5, stub={"pause": 0.5})

    run = Run(lab, "create", "--config", path)
    try:
        run.wait_for_results(2, 150)
    finally:
        run.stop()
    before = run.state()
    assert len(before["results"]) >= 2

    again = Run(lab, "resume", run.id)
    try:
        again.wait_for_end(200)
    finally:
        again.stop()
    after = again.state()

    assert _next_sample(path, before["sampler"]) == after["proposals"][str(len(before["proposals"]))]["sample"]
    assert before["results"].items() <= after["results"].items()
    assert before["proposals"].items() <= after["proposals"].items()
    assert len(after["results"]) == 5  # one a trial: nothing twice, nothing lost
    log = (run.folder / "log" / "dispatcher.log").read_text()
    assert f"Restored {len(before['proposals'])} proposals and {len(before['results'])} results" in log


def _next_sample(path, state):
    """What a sampler with the saved state proposes next."""
    import toy_task

    settings = check_config(path)
    sampler = settings.sampler.build()
    sampler.bind(choices_of(toy_task.ToySpace()))
    sampler.load_state_dict(state)
    return dict(sampler.sample())


def test_what_still_runs_in_nni_is_not_resumed(monkeypatch):
    known = {"abc": {"logDir": "runs", "status": "RUNNING", "pid": os.getpid()}}
    monkeypatch.setattr(config_utils.Experiments, "get_all_experiments", lambda self: known)
    with pytest.raises(LaunchError, match="`abc` still runs in NNI. `nnictl stop abc` stops it."):
        resume("abc")
    with pytest.raises(LaunchError, match="NNI knows no experiment `xyz`"):
        resume("xyz")


# Assessors


def falling(lab, mode, **document):
    """Trials of which each is worse than the one before, with an assessor that stops what is below the median."""
    settings = {"optimize_mode": "minimize"}
    if mode == "multi_trial":
        shutil.copy(Path(__file__).parents[1] / "toy_task.py", lab.folder)
        (lab.folder / "shared.pt").touch()
        settings |= {"mode": mode, "space": "toy_task:ToySpace", "sampler": "enas", "checkpoint": "shared.pt"}
    assessor = {"name": "Medianstop", "classArgs": {"optimize_mode": "minimize", "start_step": 1}}
    return lab.write(settings, assessor=assessor, maxTrialNumber=3, stub={"epochs": 8, "pause": 0.7}, **document)


@pytest.mark.slow
def test_a_launch_counts_the_trials_that_an_assessor_stopped(lab):
    seeds = {"seed": {"_type": "randint", "_value": [0, 1000]}}
    status, output, error = lab.run("launch", falling(lab, "one_shot", searchSpace=seeds), timeout=200)
    assert status == 0, output + error
    assert "1 succeeded, 0 failed, 2 stopped" in output


@pytest.mark.slow
def test_a_multi_trial_run_with_an_assessor_ends_and_can_be_viewed_and_exported(lab):
    run = Run(lab, "create", "--config", falling(lab, "multi_trial"))
    try:
        run.wait_for_end(150)
        statuses = [job["status"] for job in run.jobs()]
        assert statuses.count("SUCCEEDED") == 1
        stopped = statuses.count("EARLY_STOPPED") + statuses.count("USER_CANCELED")
        assert stopped == 2, "NNI takes some for stopped by its user"
    finally:
        run.stop()
    state = run.state()
    assert state["results"] == {"0": 0.0} and set(state["proposals"]) == {"0", "1", "2"}

    port = choose_port(None)
    viewed = lab.run("nnictl", "view", run.id, "--port", port)
    assert viewed[0] == 0, viewed
    try:
        wait_until(lambda: ask(port, "check-status")["status"] == "VIEWED", 30, "the view")
        assert listening(lab) == {"127.0.0.1"}
        assert len(ask(port, "trial-jobs")) == 3
        done = lab.nnictl("experiment", "export", run.id, "--filename", "results.json", "--type", "json")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        run.stop()
    (result,) = json.loads((lab.folder / "results.json").read_text())
    assert result["parameter"]["proposal"] == 0 and result["parameter"]["sample"] == state["proposals"]["0"]["sample"]


def listening(lab):
    """Addresses on which processes of the lab wait for connections."""
    found = set()
    for process in lab.processes():
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections("tcp")
            found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.nnictl
def test_nnictl_ends_with_its_own_status(lab):
    status, output, _ = lab.run("nnictl", "view", "nothing")
    assert status == 1 and "nothing" in output


# NNI's own tuners


@pytest.mark.slow
def test_nnis_tpe_searches_a_space_that_the_command_printed(lab):
    shutil.copy(Path(__file__).parents[1] / "toy_task.py", lab.folder)
    named = {"mode": "multi_trial", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
    settings = lab.write({**named, "sampler": "random", "checkpoint": "shared", "evaluator_args": {"epochs": 1}})
    settings.rename(lab.folder / "settings.yml")
    status, output, error = lab.run("space", "--from", "toy_task:ToySpace")
    assert status == 0, error
    (lab.folder / "search_space.json").write_text(output)
    status, _, error = lab.run("warmup", "settings.yml", timeout=200)
    assert status == 0, error

    document = yaml.safe_load((lab.folder / "settings.yml").read_text())
    del document["searchSpace"]
    tuner = {"name": "TPE", "classArgs": {"optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 2}}}
    command = "python3 -m nni_dynconv.trial settings.yml"
    document |= {"tuner": tuner, "searchSpaceFile": "search_space.json", "trialCommand": command, "maxTrialNumber": 3}
    path = lab.folder / "tpe.yml"
    path.write_text(yaml.safe_dump(document))
    run = Run(lab, "create", "--config", path)
    try:
        results = run.wait_for_end(200)
    finally:
        run.stop()
    assert len(results) == 3
    for job in results:
        (proposed,) = job["hyperParameters"]
        written = json.loads((Path(job["logPath"]) / "architecture.json").read_text())["architecture"]
        assert written == json.loads(proposed)["parameters"]
