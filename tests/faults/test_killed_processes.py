"""`kill -9` of processes that run a plain loop, or a search by `NasExperiment`, at random moments; all five samplers.

`KILLS=20 make test-faults ARGS="-k killed_process"` kills as often.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupted import SAMPLERS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "19"))
TESTS = Path(__file__).parents[1]
PROGRAM = """
import hashlib, pathlib, sys, time
sys.path.insert(0, {tests!r})
import torch
import interrupted
from nni_dynconv.keeping import encode

number, kind, folder, pause = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
sampler = interrupted.SAMPLERS[number]


class Slowly(interrupted.Counted):
    def step(self):
        super().step()
        print("step", flush=True)
        time.sleep(pause)


class SlowLoop(interrupted.Loop):
    def step(self, *batches):
        print("step", flush=True)
        time.sleep(pause)
        super().step(*batches)


if kind == "loop":
    state = SlowLoop(sampler, folder, minutes=0.0).run().state[:3]
else:
    search = interrupted.Searched(
        sampler, folder, entrance="experiment", evaluator=lambda counted: interrupted.wave_evaluator(Slowly())
    )
    found = search.run().state
    state = {{name: found[name] for name in ("supernet", "architecture", "network", "metrics", "best")}}
print("result", hashlib.sha256(encode(state)).hexdigest(), flush=True)
"""


class Program:
    """A process of a user's: how many steps it took, and what it ended with."""

    def __init__(self, home, number, kind, folder, pause=0.0):
        script = home / "program.py"
        script.write_text(PROGRAM.format(tests=str(TESTS)))
        paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "HOME": str(home), "NNI_CONFIG_DIR": str(home / "nni"), "PYTHONPATH": paths}
        self.log = (home / f"said {time.monotonic()}").open("w+")
        command = [sys.executable, str(script), str(number), kind, str(folder), str(pause)]
        output = {"stdout": self.log, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, env={**environment, "OMP_NUM_THREADS": "1"}, cwd=home, **output)

    @property
    def said(self):
        return Path(self.log.name).read_text()

    @property
    def steps(self):
        return len(re.findall(r"^step$", self.said, re.MULTILINE))

    def result(self):
        assert self.process.wait(600) == 0, self.said
        return re.search(r"^result (\w+)$", self.said, re.MULTILINE).group(1)

    def kill_after(self, steps, more):
        while self.steps < steps and self.process.poll() is None:
            time.sleep(0.02)
        time.sleep(more)
        self.process.kill()
        self.process.wait(60)


@pytest.mark.parametrize("kind", ["loop", "experiment"])
def test_a_killed_process_ends_as_one_that_was_not(kind, tmp_path, capsys):
    draws, done, twice = random.Random(f"{SEED} {kind}"), 0, []
    share = -(-KILLS // len(SAMPLERS))
    for number, sampler in itertools.islice(enumerate(SAMPLERS), min(KILLS, len(SAMPLERS))):
        whole = Program(tmp_path, number, kind, tmp_path / f"whole {number}")
        expected, steps, spent, folder = whole.result(), whole.steps, 0, tmp_path / f"killed {number}"
        for _ in range(share):
            program = Program(tmp_path, number, kind, folder, pause=0.03)
            program.kill_after(draws.randint(1, max(min(2 * steps // share, steps - 1), 2)), draws.uniform(0, 0.1))
            spent, done = spent + program.steps, done + 1
            if program.process.returncode == 0:  # it was faster
                done -= 1
                break
        last = Program(tmp_path, number, kind, folder)
        assert last.result() == expected, f"{sampler.__name__} differs"
        twice.append(spent + last.steps - steps)
    with capsys.disabled():
        words = f"{done} kills of {kind}, {len(SAMPLERS)} samplers, all equal to the last bit (seed {SEED})"
        print(f"\n{words}; steps done twice for each sampler: {twice}.")
