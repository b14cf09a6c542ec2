"""Plain `nnictl` runs the project's YAMLs, and a stopped multi-trial experiment goes on as it was."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from nni_runs import REPOSITORY, Lab, ask, wait_until

from nni_dynconv.config import check_config
from nni_dynconv.experiment import choose_port, error_in_log
from nni_dynconv.samplers import choices_of
from nni_dynconv.tuner import STATE_FILE

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yml"))


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    assert lab.run("register")[0] == 0
    yield lab
    left = lab.processes()
    lab.end_processes()
    assert not left, f"processes left behind: {[process.cmdline() for process in left]}"


class Run:
    """One experiment under plain ``nnictl``."""

    def __init__(self, lab: Lab, *arguments):
        self.lab, self.port = lab, choose_port(None)
        done = lab.nnictl(*arguments, "--port", self.port)
        assert done.returncode == 0, done.stdout + done.stderr
        profile = ask(self.port, "experiment")
        self.id, self.folder = profile["id"], Path(profile["logDir"])

    def jobs(self):
        error = error_in_log((self.folder / "log" / "dispatcher.log").read_text()) if self._has_log() else None
        assert error is None, error
        jobs = ask(self.port, "trial-jobs")
        for job in jobs:
            assert job["status"] != "FAILED", (Path(job["logPath"]) / "trial.stderr").read_text()[-4000:]
        return jobs

    def _has_log(self):
        return (self.folder / "log" / "dispatcher.log").is_file()

    def results(self):
        return [job for job in self.jobs() if job.get("finalMetricData")]

    def wait_for_results(self, number, seconds):
        return wait_until(lambda: len(self.results()) >= number and self.results(), seconds, f"{number} results")

    def wait_for_end(self, seconds):
        wait_until(lambda: self.jobs() and ask(self.port, "check-status")["status"] == "DONE", seconds, "the end")
        return self.results()

    def stop(self):
        """Stop it and see that NNI's processes are gone."""
        self.lab.nnictl("stop", self.id)
        wait_until(lambda: not self.lab.processes(), 20, "the end of the processes")

    def state(self):
        """What the tuner saved: proposals and counted results, and the sampler's own state."""
        raw = (self.folder / "checkpoint" / STATE_FILE).read_bytes()
        if raw.startswith(b"{"):
            return json.loads(raw)
        state = torch.load(io.BytesIO(raw), weights_only=True)
        return {**json.loads(state["tuner"]), "sampler": state["sampler"]}


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
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


@pytest.mark.parametrize("sampler", ["random", "enas"])
def test_a_multi_trial_experiment_that_is_stopped_and_resumed_goes_on_as_it_was(sampler, lab):
    shutil.copy(Path(__file__).with_name("toy_task.py"), lab.folder)
    (lab.folder / "shared.pt").touch()
    named = {"mode": "multi_trial", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}
    settings = {**named, "sampler": {"name": sampler, "seed": 1}, "checkpoint": "shared.pt"}
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
