"""`kill -9` of trial, tuner, manager, `launch` or all of them, at random moments of a one-shot search through NNI.

The trial is somebody's: a network of one axis with dropout and BatchNorm, on data that draw from every generator.
`KILLS=50 make test-faults ARGS="-k killed_search"` kills as often.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import psutil
import pytest
from nni_runs import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("SEED", "19"))
VICTIMS = ("trial", "tuner", "manager", "launch", "all")
STAGES = ("search, in epoch 1", "search, in epoch 2", "end of its search", "final training")
WORDS = {"trial": "nni_dynconv.trial", "tuner": "--exp_params", "manager": "main.js"}
SLOWLY = """
import time
import interrupted
from interrupted import WaveSpace, Counted


class Slowly(Counted):
    def step(self):
        time.sleep({pause})


def evaluator():
    interrupted.start()
    return interrupted.wave_evaluator(Slowly(), epochs=2)
"""


def write(lab, pause=0.15):
    shutil.copy(Path(__file__).parents[1] / "interrupted.py", lab.folder)
    (lab.folder / "slow_task.py").write_text(SLOWLY.format(pause=pause))
    strategy = {"contenders": 4, "contender_batches": 2, "rerank": 3, "rerank_steps": 4, "final_epochs": 2}
    settings = {
        "mode": "one_shot",
        "space": "slow_task:WaveSpace",
        "evaluator": "slow_task:evaluator",
        "sampler": "gdas",
        "context": {"name": "vector", "in_features": 3, "dim": 4},
        "strategy": strategy,
        "metric": "val_loss",
        "optimize_mode": "minimize",
    }
    return lab.write(settings, trialCommand="python3 -m nni_dynconv.trial", maxTrialNumber=1)


class Search:
    """An experiment that is launched, killed and resumed."""

    def __init__(self, lab, output):
        self.lab, self.output, self.config, self.id = lab, output, write(lab), None

    def begin(self):
        words = ["launch", self.config, "--no-try"] if self.id is None else ["resume", self.id]
        self.log = (self.lab.folder / "said.txt").open("w+")
        self.process = self.lab.start(*words, "--output", self.output, stdout=self.log, stderr=self.log)
        return self

    @property
    def said(self):
        return Path(self.log.name).read_text()

    def folder(self):
        """Of the trial, as soon as there is one."""
        if self.id is None:
            found = re.search(r"NNI experiment (\w+)", self.said)
            self.id = found.group(1) if found else None
        found = list((self.lab.folder / "experiments").glob(f"{self.id}/environments/*/trials/*"))
        return found[0] if found and self.id is not None else None

    def where(self):
        folder = self.folder()
        path = None if folder is None else folder / "checkpoints" / "where.txt"
        return path.read_text() if path is not None and path.is_file() else ""

    def kill(self, victim):
        if victim in ("launch", "all"):
            self.process.kill()
        if victim == "all":
            self.lab.end_processes()
        if victim in WORDS:
            for one in self.lab.processes():
                with contextlib.suppress(psutil.Error):
                    if WORDS[victim] in " ".join(one.cmdline()) and one.name() not in ("sh", "bash"):
                        one.kill()
        self.process.wait(400)  # without its tuner or manager it waits for what the trial still writes

    def result(self):
        """What was found, to the last bit."""
        names = ("network.safetensors", "weights.safetensors", "supernet/supernet.safetensors")
        found = {name: (self.output / name).read_bytes() for name in names}
        return {**found, "architecture": json.loads((self.output / "architecture.json").read_text())}


def steps(text):
    """How many batches a checkpoint's words tell, of an epoch of six."""
    return int(re.search(r"after batch (\d+)|$", text).group(1) or 0)


def test_a_killed_search_ends_as_one_that_was_not(lab, tmp_path, capsys):
    draws = random.Random(SEED)
    whole = Search(lab, tmp_path / "whole").begin()
    assert whole.process.wait(400) == 0, whole.said
    expected, done, rounds = whole.result(), [], 0
    while len(done) < KILLS:
        rounds += 1
        search = Search(lab, tmp_path / f"killed {rounds}")
        for _ in range(min(draws.randint(1, 5), KILLS - len(done))):
            search.begin()
            victim, stage = draws.choice(VICTIMS), draws.choice(STAGES)
            wait_until(lambda s=search, t=stage: t in s.where() or s.process.poll() is not None, 400, stage)
            if search.process.poll() is not None:  # it was past that stage
                break
            time.sleep(draws.uniform(0, 1.5))
            at = search.where()
            search.kill(victim)
            done.append((victim, at))
            print(f"kill {len(done)}: {victim}, {at}", flush=True)
        if search.process.poll() != 0:
            search.begin()
            assert search.process.wait(400) == 0, search.said
        assert search.result() == expected, f"after kills {done}"
        print(f"round {rounds} is equal to the last bit", flush=True)
    with capsys.disabled():
        print(f"\n{len(done)} kills in {rounds} searches, all equal to the last bit (seed {SEED}).")
