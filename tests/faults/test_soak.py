"""Busy machines, and many trials: `LAUNCHES` and `TRIALS` in the environment say how many."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time

import psutil
import pytest
from busy import BUSY, busy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(4 * 3600)]

LAUNCHES = int(os.environ.get("LAUNCHES", "20"))
TRIALS = int(os.environ.get("TRIALS", "300"))
WARM = 0.3
"""Of the trials, after which memory is compared."""


def test_launches_on_a_busy_machine_end_well(lab):
    """One in five used to fail: NNI's manager or tuner was not quick enough."""
    config, failed, again = lab.write(maxTrialNumber=1), [], 0
    with busy():
        for number in range(LAUNCHES):
            status, output, error = lab.run("launch", config, "--no-try", "--output", f"out{number}", timeout=900)
            failed += [error] if status else []
            again += output.count("trying again")
            print(f"launch {number + 1}: status {status}", flush=True)
    print(
        f"\nlaunches beside {BUSY} busy processes: {LAUNCHES - len(failed)} of {LAUNCHES} end well, {again} tried again"
    )
    assert not failed and not lab.processes()


DYING = """
import os, random, signal
import nni
parameters = nni.get_next_parameter()
number = parameters["proposal"]
generator = random.Random(number)
nni.report_intermediate_result(0.0)
if number and generator.random() < 0.05:
    os.kill(os.getpid(), signal.SIGKILL)
nni.report_final_result({"default": generator.random(), "proposal": number})
"""


def memory_of(process):
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return None


def test_many_trials_of_which_some_die_are_all_accounted_for_in_steady_memory(lab):
    config = lab.write(maxTrialNumber=TRIALS, trialConcurrency=4)
    (lab.folder / "stub_trial.py").write_text(DYING)
    with (lab.folder / "said").open("wb") as said:
        process = lab.start_on("launch", config, "--no-try", "--output", "out", terminal=said)
        readings = {"launch": [], "tuner": []}
        while process.poll() is None:
            tuner = next((one for one in lab.processes() if "--exp_params" in _words(one)), None)
            for name, one in (("launch", psutil.Process(process.pid)), ("tuner", tuner)):
                found = memory_of(one) if one is not None else None
                readings[name] += [found] if found else []
            time.sleep(1.0)
    output = (lab.folder / "said").read_text()
    line = re.search(r"^Trials: (\d+) = .*$", output, re.MULTILINE)
    assert process.returncode == 0 and line and int(line.group(1)) == TRIALS, output[-2000:]
    grown = {}
    for name, found in readings.items():
        found = found[int(WARM * len(found)) :]
        tenth = max(len(found) // 10, 1)
        grown[name] = statistics.median(found[-tenth:]) / statistics.median(found[:tenth]) - 1
    told = ", ".join(f"{name} {100 * one:+.1f} %" for name, one in grown.items())
    print(f"\nsoak: {line.group()} Memory after warm-up: {told}")
    assert all(one < 0.05 for one in grown.values()) or TRIALS < 100, told


def _words(process):
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
