"""How processes are ended: from the top down, so that a trial keeps its loader's workers until it is through."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import psutil
from nni_runs import wait_until

from nni_dynconv.launching.running.watched import end_all

TRIAL = """
import signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

def asked(number, frame):
    time.sleep(0.5)
    with open(sys.argv[1], "w") as file:
        file.write(f"the worker's status: {worker.poll()}")
    worker.kill()
    worker.wait()
    sys.exit()

signal.signal(signal.SIGTERM, asked)
with open(sys.argv[1], "w") as file:
    file.write("begun")
time.sleep(60)
"""


def family(*parents):
    found = []
    for parent in parents:
        with contextlib.suppress(psutil.Error):
            found += [parent, *parent.children(recursive=True)]
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_what_a_process_has_started_is_left_to_it(tmp_path):
    """All used to be asked at once: a loader whose worker ends raises, and the trial ended without a checkpoint."""
    told = tmp_path / "told"
    process = subprocess.Popen([sys.executable, "-c", TRIAL, str(told)])
    wait_until(told.is_file, 30, "the trial")
    known = family(psutil.Process(process.pid))
    assert len(known) == 2
    end_all(lambda: [one for one in known if one in family(*known)], 20)
    assert told.read_text() == "the worker's status: None" and process.wait(5) == 0


def test_what_does_not_end_in_time_is_killed_with_what_it_has_started(tmp_path):
    told = tmp_path / "told"
    process = subprocess.Popen([sys.executable, "-c", TRIAL.replace("0.5", "50"), str(told)])
    wait_until(told.is_file, 30, "the trial")
    known = family(psutil.Process(process.pid))
    end_all(lambda: [one for one in known if one in family(*known)], 0.5)
    process.wait(5)
    assert not family(*known)
