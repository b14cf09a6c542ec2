"""Whole launches under faults: signals, kills, liars, full disks, doors. Each says what it tried."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from nni_runs import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

POINTS = int(os.environ.get("POINTS", "20"))
"""Moments at which a disk is filled."""
SECRET = "correct-horse-battery-staple"


def words_of(process):
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def running(lab, words):
    return [one for one in lab.processes() if words in words_of(one) and one.name() not in ("sh", "bash")]


def listening(lab):
    """Addresses at which anything of a lab listens."""
    found = set()
    for process in lab.processes():
        with contextlib.suppress(psutil.Error):
            found |= {one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found


def ends(process, seconds=120):
    """Wait for a launch: status, output, error."""
    output, error = process.communicate(timeout=seconds)
    assert "Traceback" not in error, error
    return process.returncode, output, error


def experiment_in(said):
    return re.search(r"NNI experiment (\w+):", said).group(1)


# Ended from outside


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_takes_everything_down_and_says_what_goes_on_and_that_goes_on(name, lab):
    """SIGHUP used to leave manager, tuner and trial running; the trial that ran was never run again."""
    config = lab.write(maxTrialNumber=2, stub={"epochs": 60, "pause": 0.5})
    process = lab.start("launch", config, "--output", "out", "--no-try")
    wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
    assert listening(lab) == {"127.0.0.1"}
    time.sleep(6)
    process.send_signal(getattr(signal, name))
    status, output, error = ends(process)
    assert status == 130 and not lab.processes()
    command = re.search(r"`nni-dynconv (resume \w+ --output out)` goes on with it", output).group(1)

    again = lab.start(*command.split())
    wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
    assert listening(lab) == {"127.0.0.1"}
    status, output, error = ends(again)
    assert status == 0 and "Trials: 2 = 2 succeeded, 0 failed." in output, output + error
    print(f"\n{name}: 1 launch ended, 0 processes left, resumed, 2 of 2 trials succeeded; only 127.0.0.1 listened")


def test_a_closed_terminal_ends_everything(lab):
    """What is printed then fails, too."""
    config = lab.write(stub={"epochs": 100, "pause": 0.5})
    master, slave = os.openpty()
    process = lab.start_on("launch", config, "--no-try", terminal=slave)
    os.close(slave)
    wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
    os.close(master)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(90)
    assert not lab.processes()
    print("\na closed terminal: 1 launch, 0 processes left")


@pytest.mark.parametrize("victim", ["launch", "manager", "everything"])
def test_what_kill_9_leaves_is_taken_over_by_a_resume(victim, lab):
    config = lab.write(maxTrialNumber=2, stub={"epochs": 20, "pause": 0.5})
    said = lab.folder / "said"
    with said.open("wb") as file:
        process = lab.start_on("launch", config, "--output", "out", "--no-try", terminal=file)
        wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
        time.sleep(6)
        if victim == "everything":
            lab.end_processes()
        elif victim == "manager":
            running(lab, "--experiment-id")[0].kill()
        else:
            process.kill()
        process.wait(120)
    known = experiment_in(said.read_text())
    assert victim == "launch" or not lab.processes()
    if victim == "manager":
        assert "NNI's manager was killed" in said.read_text()
    status, output, error = lab.run("resume", known, "--output", "out", timeout=200)
    assert status == 0 and "Trials: 2 = 2 succeeded, 0 failed." in output, output + error
    assert not lab.processes()
    print(f"\nkill -9 of {victim}: resumed, 2 of 2 trials succeeded")


# Several at once, and slowly


def test_two_launches_at_once_both_end_well_and_one_output_serves_one(lab):
    config = lab.write(maxTrialNumber=1)
    first = lab.start("launch", config, "--output", "one", "--no-try")
    second = lab.start("launch", config, "--output", "two", "--no-try")
    wait_until(lambda: (lab.folder / ".one.lock").exists(), 60, "the lock")
    status, output, error = lab.run("launch", config, "--output", "one", "--no-try")
    assert status == 1 and "Another launch is under way whose `--output` is" in error
    for process in (first, second):
        status, output, error = ends(process)
        assert status == 0 and "Trials: 1 = 1 succeeded, 0 failed." in output, output + error
    assert {one.name for one in lab.folder.iterdir()} >= {"one", "two"}
    print("\ntwo launches at once: 2 of 2 end well; a third with the first one's output is refused")


def test_a_tuner_that_takes_longer_than_ten_seconds_is_waited_for(lab):
    """NNI used to end the experiment: "Tuner did not connect in 10 seconds"."""
    site = lab.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, time\nif os.environ.get('SDK_PROCESS') == 'dispatcher':\n    time.sleep(14)\n"
    )
    process = lab.start("launch", lab.write(maxTrialNumber=1), "--no-try", more={"PYTHONPATH": str(site)})
    status, output, error = ends(process)
    assert status == 0 and "Trials: 1 = 1 succeeded, 0 failed." in output, output + error
    print("\na tuner that connects after 14 s: 1 of 1 launches end well")


# Trials that misbehave

LIARS = """
import json, os, signal, sys, time
import nni
parameters = nni.get_next_parameter()
number = parameters["proposal"]
def report(value):
    nni.report_final_result({"default": value, "proposal": number})
kind = ["well", "crash", "nan", "inf", "string", "nothing", "twice", "unknown", "killed", "bare"][number]
nni.report_intermediate_result(0.0)
if kind == "crash": sys.exit(3)
elif kind == "nan": report(float("nan"))
elif kind == "inf": report(float("inf"))
elif kind == "string": report("good")
elif kind == "twice": report(0.25); report(0.75)
elif kind == "unknown": nni.report_final_result({"default": 9.0, "proposal": 77})
elif kind == "killed": os.kill(os.getpid(), signal.SIGKILL)
elif kind == "bare": nni.report_final_result(0.125)
elif kind == "well": report(0.5)
"""


def test_each_liar_is_counted_in_one_line_that_adds_up(lab):
    config = lab.write(maxTrialNumber=10, trialConcurrency=2)
    (lab.folder / "stub_trial.py").write_text(LIARS)
    status, output, error = ends(lab.start("launch", config, "--output", "out", "--no-try"), 300)
    line = re.search(r"^Trials: (\d+) = (.*)\.$", output, re.MULTILINE)
    assert status == 0 and line, output + error
    counted = re.sub(r"\(.*?\)", "", line.group(2).partition(";")[0])
    assert int(line.group(1)) == sum(map(int, re.findall(r"\d+", counted))) == 10, line.group()
    log = next(lab.folder.glob("experiments/*/log/dispatcher.log")).read_text()
    assert "nothing was proposed under the number 77" in log
    facts = json.loads((lab.folder / "out" / "experiment.json").read_text())
    assert sum(facts["trials"].values()) == len(facts["evaluated"]) == 10
    print(f"\nliars: {line.group()}")


def test_a_trial_that_hangs_ends_with_the_time_and_what_was_finished_is_delivered(lab):
    config = lab.write(maxTrialNumber=2)
    stub = lab.folder / "stub_trial.py"
    stub.write_text(stub.read_text().replace("for epoch", "if number == 1:\n    time.sleep(1000)\nfor epoch"))
    status, output, error = ends(lab.start("launch", config, "--output", "out", "--no-try", "--timeout", "100"), 300)
    assert status == 1 and "`--timeout` is over" in error and not lab.processes()
    assert "Trials: 2 = 1 succeeded, 0 failed, 1 unfinished." in output, output + error
    assert (lab.folder / "out" / "summary.json").is_file() and (lab.folder / "out" / "unfinished.json").is_file()
    assert "goes on with it" in output
    print("\na trial that hangs: 1 launch; the trial before it was delivered")


# Places


@pytest.fixture
def small(tmp_path):
    """Mount a small disk; a machine that cannot fails here, by name."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = []

    def mount(size, more=""):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777{more}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"this machine mounts no tmpfs: {done.stderr}"
        mounted.append(place)
        return place

    yield mount
    for one in mounted:
        subprocess.run(["umount", "-l", str(one)], check=True)


def test_a_disk_that_is_full_from_the_start_is_told_before_the_search(small, lab):
    place = small("4m")
    status, output, error = lab.run("launch", lab.write(experimentWorkingDirectory=str(place)), "--no-try")
    assert status == 1 and "`experimentWorkingDirectory`" in error and "MiB left on its disk" in error, error
    status, output, error = lab.run("launch", lab.write(), "--no-try", "--output", place / "out")
    assert status == 1 and "MiB left on its disk" in error, error
    process = lab.start("launch", lab.write(), "--no-try", more={"TMPDIR": str(place)})
    status, output, error = ends(process)
    assert status == 1 and "temporary files" in error and "MiB left" in error, error
    print("\na full disk before the start (experiments, output, temporary files): 3 of 3 told, nothing started")


def test_a_read_only_place_is_told_before_the_search(small, lab):
    place = small("64m", ",ro")
    for arguments, document, words in (
        (("--output", place / "out"), {}, "cannot be written: Read-only file system"),
        ((), {"experimentWorkingDirectory": str(place / "x")}, "cannot be written: Read-only file system"),
    ):
        status, output, error = lab.run("launch", lab.write(**document), "--no-try", *arguments)
        assert status == 1 and words in error, error
    process = lab.start("launch", lab.write(), "--no-try", more={"HOME": str(place)})
    status, output, error = ends(process)
    assert status == 1 and "`HOME` is where NNI keeps its list" in error, error
    print("\nread-only places (output, experiments, HOME): 3 of 3 told, nothing started")


def fill(place):
    """Fill a disk to its last byte, and return what fills it."""
    filler = Path(place, "filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (2**16, 1024, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return filler


@pytest.mark.parametrize("after", [0.7 * one for one in range(POINTS)])
def test_a_disk_that_fills_while_it_runs_is_told_and_it_goes_on_after_room_was_made(after, small, lab):
    place = small("40m")
    config = lab.write(maxTrialNumber=4, experimentWorkingDirectory=str(place), stub={"pause": 0.3})
    process = lab.start("launch", config, "--output", "out", "--no-try")
    wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
    time.sleep(after)
    filler = fill(place)
    try:
        output, error = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=90)
    assert "Traceback" not in error and not lab.processes(), error
    filler.unlink()
    if process.returncode == 0:
        print(f"\na disk full after {after:.1f} s: 1 launch ended well all the same")
        return
    known = experiment_in(output)
    status, output, error2 = lab.run("resume", known, "--output", "out", timeout=200)
    print(f"\na disk full after {after:.1f} s: told ({error.strip().splitlines()[-1]}), resumed with status {status}")
    assert "is full. Make room" in error or "No space left" in error, error
    assert status == 0, output + error2


# Doors and secrets


def test_nobody_else_reads_the_settings(lab):
    """They used to stand in the tuner's command line, in base64, and in logs that everyone could read."""
    config = lab.write({"evaluator_args": {"password": SECRET}}, stub={"epochs": 12, "pause": 0.5})
    process = lab.start("launch", config, "--no-try")
    wait_until(lambda: running(lab, "stub_trial.py"), 90, "a trial")
    lines = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    tried = 0
    for line in lines:
        tried += 1
        assert SECRET not in line
        for word in re.findall(r"[A-Za-z0-9+/=]{16,}", line):
            with contextlib.suppress(ValueError):
                assert SECRET.encode() not in base64.b64decode(word + "=" * (-len(word) % 4))
    open_files = [one for one in (lab.folder / "experiments").rglob("*") if one.is_file() and _world_reads(one, lab)]
    leaks = [one for one in open_files if SECRET.encode() in one.read_bytes()]
    ends(process)
    assert not leaks
    print(f"\nsecrets: {tried} command lines, {len(open_files)} files that others can reach: 0 hold one")


def _world_reads(path, lab):
    """Whether other users can reach and read a file."""
    folders = [one for one in path.parents if one.is_relative_to(lab.folder / "experiments")]
    return bool(path.stat().st_mode & 0o004) and all(one.stat().st_mode & 0o001 for one in folders)
