"""`kill -9` in the middle of a multi-trial experiment, then `nnictl resume`: as if nothing had happened.

The sampler of these experiments keeps a journal: each call, and a digest of its whole state (parameters, optimizer,
baseline, generator) after it.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from nni_runs import Run, wait_until

pytestmark = pytest.mark.slow

TRIALS = 6
RANDOM = random.Random(0)

JOURNAL_TASK = """
import hashlib, json, os, pathlib, signal
import torch
from toy_task import ToySpace
from nni_dynconv.samplers import EnasSampler

FOLDER = pathlib.Path(__file__).parent
ARMED = FOLDER / "armed"
sync = os.fsync


def killed_while_it_writes(file):
    if ARMED.exists():
        ARMED.rename(FOLDER / "fired")
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)


os.fsync = killed_while_it_writes


def plain(value):
    if isinstance(value, dict):
        return [[repr(key), plain(one)] for key, one in value.items()]
    return value.tolist() if isinstance(value, torch.Tensor) else repr(value)


def digest(state):
    return hashlib.sha256(json.dumps(plain(dict(state))).encode()).hexdigest()


class JournalSampler(EnasSampler):
    def note(self, event):
        line = {"event": event, "process": os.getpid(), "state": digest(self.state_dict())}
        with open(FOLDER / "journal", "a") as file:
            file.write(json.dumps(line) + "\\n")

    def sample(self):
        sample = super().sample()
        self.note("sample")
        return sample

    def observe(self, sample, reward):
        super().observe(sample, reward)
        self.note("observe")

    def load_state_dict(self, *arguments, **options):
        super().load_state_dict(*arguments, **options)
        self.note("load")
"""


WAIT = """
while os.path.exists({!r}):
    time.sleep(0.1)
"""


@pytest.fixture
def lab(lab):
    assert lab.run("register")[0] == 0
    return lab


def write_experiment(lab):
    """Six small trials, two at a time; each lives on a moment after its report."""
    shutil.copy(Path(__file__).parents[1] / "toy_task.py", lab.folder)
    (lab.folder / "journal_task.py").write_text(JOURNAL_TASK)
    (lab.folder / "shared.pt").touch()
    named = {"mode": "multi_trial", "space": "journal_task:ToySpace", "evaluator": "toy_task:evaluator"}
    settings = {**named, "sampler": {"name": "journal_task:JournalSampler", "seed": 1}, "checkpoint": "shared.pt"}
    path = lab.write(settings, maxTrialNumber=TRIALS, trialConcurrency=2, stub={"pause": 0.2})
    before, after = (WAIT.format(str(lab.folder / name)) for name in ("before the report", "after the report"))
    report = "nni.report_final_result("
    head, _, tail = (lab.folder / "stub_trial.py").read_text().partition(report)
    (lab.folder / "stub_trial.py").write_text(f"{head}{before}{report}{tail}time.sleep(1)\n{after}")
    return path


class Records:
    """What NNI's database holds of an experiment."""

    def __init__(self, run):
        with contextlib.closing(sqlite3.connect(run.folder / "db" / "nni.sqlite")) as connection:
            query = "SELECT event, trialJobId, data FROM TrialJobEvent ORDER BY timestamp"
            self.events = connection.execute(query).fetchall()
            query = "SELECT trialJobId, data FROM MetricData WHERE type = 'FINAL' ORDER BY timestamp"
            self.finals = [(trial, json.loads(json.loads(data))) for trial, data in connection.execute(query)]

    def given(self, key):
        """The trials' own ``parameter_id``, or the ``parameters`` that they were given, by trial."""
        return {trial: json.loads(data)[key] for _, trial, data in self.events if data}

    def results(self):
        """The first result of each proposal."""
        return {str(value["proposal"]): value["default"] for _, value in reversed(self.finals)}

    def killed(self):
        """Trials that a signal ended: NNI calls them canceled by the user."""
        return {trial for event, trial, _ in self.events if event in ("USER_CANCELED", "FAILED")}


def journal(lab):
    return [json.loads(line) for line in (lab.folder / "journal").read_text().splitlines()]


def processes(lab, words):
    found = []
    for process in lab.processes():
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()) and process.name() != "sh":
                found.append(process)
    return found


def kill(lab, words):
    """`kill -9` one process by its id."""
    victim = RANDOM.choice(processes(lab, words))
    victim.kill()
    return victim


def kill_tuner(lab, run):
    time.sleep(RANDOM.uniform(0, 1.5))
    kill(lab, "--exp_params")


def kill_tuner_as_it_writes(lab, run):
    (lab.folder / "armed").touch()
    wait_until(lambda: (lab.folder / "fired").exists(), 60, "the next save")
    wait_until(lambda: not processes(lab, "--exp_params"), 60, "the tuner's death")


def kill_everything(lab, run):
    time.sleep(RANDOM.uniform(0, 1.5))
    lab.end_processes()


def kill_a_trial_and_then_the_tuner_and_a_trial_that_reports_after_that(lab, run):
    before, after = (lab.folder / name for name in ("before the report", "after the report"))
    before.touch()  # a trial waits while these are there
    after.touch()
    wait_until(lambda: processes(lab, "stub_trial"), 60, "a trial")
    kill(lab, "stub_trial")
    wait_until(lambda: Records(run).killed(), 60, "the end of a trial")
    wait_until(lambda: len(processes(lab, "stub_trial")) == 2, 60, "two trials")
    kill(lab, "--exp_params").wait(60)
    known = len(Records(run).finals)
    before.unlink()
    wait_until(lambda: len(Records(run).finals) > known, 60, "a report that no tuner hears")
    for process in processes(lab, "stub_trial"):
        process.kill()
    after.unlink()
    wait_until(lambda: len(Records(run).killed()) > 1, 60, "the end of a trial after its report")


WAYS = [kill_tuner, kill_tuner_as_it_writes, kill_everything]
WAYS += [kill_a_trial_and_then_the_tuner_and_a_trial_that_reports_after_that]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_after_kill_9_a_resume_goes_on_as_it_was_counting_each_result_once(way, lab):
    run = Run(lab, "create", "--config", write_experiment(lab))
    try:
        run.wait_for_results(2, 100)
        way(lab, run)
    finally:
        run.stop()
    before, killed = run.state(), Records(run)

    again = Run(lab, "resume", run.id)
    try:
        wait_until(lambda: again.status() == "DONE", 100, "the end")
    finally:
        again.stop()
    after, records, notes = again.state(), Records(again), journal(lab)

    assert before["proposals"].items() <= after["proposals"].items()
    assert before["results"].items() <= after["results"].items(), "no result is lost"
    assert after["results"] == records.results(), "each that was reported is counted, as it was reported first"
    assert int(after["sampler"]["observed"]) == len(after["results"]), "and once"

    (resumed,) = [number for number, note in enumerate(notes) if note["event"] == "load"]
    earlier, later = notes[:resumed], notes[resumed:]
    saved = [number for number, note in enumerate(earlier) if note["state"] == later[0]["state"]]
    assert saved and saved[-1] >= len(earlier) - 2, "the state of the last call, or of the one before if that was hit"
    calls = Counter(note["event"] for note in earlier[: saved[-1] + 1] + later[1:])
    assert calls == {"sample": len(after["proposals"]), "observe": len(after["results"])}

    numbers = [given["proposal"] for given in records.given("parameters").values()]
    ids = list(records.given("parameter_id").values())
    assert len(numbers) == len(ids) == TRIALS
    assert len(set(numbers)) == len(set(ids)) == TRIALS, "neither proposals nor NNI's parameter ids repeat"
    assert set(after["results"]) <= {str(number) for number in numbers}
    expected = TRIALS - len(killed.killed() - {trial for trial, _ in killed.finals})
    assert len(after["results"]) == expected, "every trial counts but those that were killed before they reported"


def test_a_launch_tells_at_once_that_its_tuner_was_killed_and_resume_goes_on(lab):
    """NNI itself misses it after half a minute."""
    process = lab.start("launch", write_experiment(lab))
    wait_until(lambda: (lab.folder / "journal").exists() and len(journal(lab)) > 3, 100, "two results")
    kill(lab, "--exp_params")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in error
    experiment = re.search(r"The tuner's process was killed. `nni-dynconv resume (\w+)` goes on.", error).group(1)
    assert not lab.processes()

    status, output, error = lab.run("resume", experiment, timeout=150)
    assert status == 0, output + error
    assert f"{TRIALS} succeeded, 0 failed" in output
    assert [note["event"] for note in journal(lab)].count("load") == 1
