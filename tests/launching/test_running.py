"""NNI is waited for as long as it computes, tried again where it did not start, and ended as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from nni_runs import wait_until

from nni_dynconv.errors import LaunchError
from nni_dynconv.files import Lock
from nni_dynconv.launching.destination import Destination
from nni_dynconv.launching.running import patience, starting
from nni_dynconv.launching.running.patience import NotStartedError, Patience, UnfinishedError
from nni_dynconv.launching.running.stopping import stopping
from nni_dynconv.launching.running.watched import Watched
from nni_dynconv.phases import Line, showing


class Clock:
    """A time that passes when it is told to, and a process that computes in it."""

    def __init__(self, monkeypatch):
        self.now = self.spent = 0.0
        monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: self.now))

    def process(self):
        return SimpleNamespace(cpu_times=lambda: (self.spent, 0.0))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_what_computes_is_waited_for_and_what_does_not_is_not(clock):
    waiting = Patience(clock.process)
    for _ in range(5):
        clock.now += 50
        clock.spent += 0.01
        waiting.check("It did not come")
    clock.now += patience.STILL
    waiting.check("It did not come")
    clock.now += 1
    with pytest.raises(NotStartedError, match="It did not come, and nothing was computed for 60 s"):
        waiting.check("It did not come")


def test_no_patience_is_without_end(clock):
    waiting = Patience(clock.process)
    while clock.now < patience.LONGEST:
        clock.now += 10
        clock.spent += 1
        waiting.check("It did not come")
    clock.now, clock.spent = clock.now + 1, clock.spent + 1
    with pytest.raises(NotStartedError, match="It did not come in 600 s"):
        waiting.check("It did not come")


def test_the_users_time_is_the_users(clock):
    waiting = Patience(lambda: None, deadline=5.0)
    clock.now = 5.1
    with pytest.raises(UnfinishedError, match="`--timeout` is over"):
        waiting.check("It did not come")


class Experiment:
    """One that does not start a few times."""

    def __init__(self, fails):
        self.fails, self.stopped, self.port = fails, 0, 1
        self.id, self.folder = "abc", "logs"

    def begin(self):
        if self.fails:
            self.fails -= 1
            raise NotStartedError("`nnictl create` failed:\nExpecting value: line 1 column 1 (char 0)")

    def stop(self):
        self.stopped += 1


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(starting, "wait_for_tuner", lambda *_: None)
    said = []

    def start(experiment):
        with Line(said.append, live=False) as line:
            starting.start(experiment, experiment.begin, line)
        return said

    return start


def test_what_does_not_start_is_stopped_and_tried_again_on_another_port_and_that_is_said(started):
    """`nnictl create` reads NNI's start page as JSON while that is starting; a launch used to end there."""
    experiment = Experiment(fails=2)
    said = started(experiment)
    assert experiment.stopped == 2 and experiment.port > 1
    assert sum("NNI did not start; trying again, on port" in one and "Expecting value" in one for one in said) == 2


def test_in_the_end_it_gives_up_in_words(started):
    experiment = Experiment(fails=9)
    with pytest.raises(LaunchError, match=r"NNI did not start, tried 3 times(.|\n)*Expecting value"):
        started(experiment)
    assert experiment.stopped == 3


HOLDER = """
import sys, time
from pathlib import Path
from nni_dynconv.files import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.take("holder"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has a lock."""
    path = tmp_path / ".out.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield path, process
    process.kill()
    process.wait()


def test_two_launches_with_one_output_are_refused_and_a_dead_one_holds_nothing(holder, tmp_path):
    """The second used to write over what the first had found."""
    path, process = holder
    with (
        pytest.raises(LaunchError, match=r"Another launch is under way whose `--output` is .*out too"),
        Destination(tmp_path / "out").held(),
    ):
        raise AssertionError
    process.kill()
    process.wait()
    with Destination(tmp_path / "out").held(), Destination(tmp_path / "other").held():
        assert path.exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_is_not_inherited_by_what_is_started(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.take("") and lock.is_taken()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lock.give_back()
    assert not lock.is_taken()
    child.communicate()


def test_an_output_that_cannot_be_is_refused_before_anything_is_started(tmp_path):
    (tmp_path / "file").touch()
    for place, words in ((tmp_path / ("x" * 300), "too long"), (tmp_path / "file" / "out", "cannot be written")):
        with pytest.raises(LaunchError, match=words), Destination(place).held():
            raise AssertionError


def test_what_a_dead_launch_left_is_known_by_its_mark(tmp_path):
    watched, mark = Watched(tmp_path), f"mark {os.getpid()}"
    assert watched.begin(mark) and watched.is_watched() and watched.was_launched()
    watched.end()
    assert not Watched(tmp_path).is_watched()
    environment = {**os.environ, "NNI_DYNCONV_LAUNCH": mark}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    assert [one.pid for one in Watched(tmp_path).left()] == [process.pid]
    process.communicate()


class Stoppable:
    def __init__(self, after=lambda: None):
        self.id, self.after, self.over = None, after, []

    def stop(self, over):
        self.over.append(over)
        self.after()


@pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_each_signal_ends_a_launch_and_a_second_does_not_stop_the_stopping(name):
    """SIGHUP used to leave manager, tuner and trial running, and a second Ctrl-C what was not ended yet."""
    number, before = getattr(signal, name), signal.getsignal(getattr(signal, name))
    experiment = Stoppable(after=lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt), stopping(experiment, print):
        _ask_to_end(number)
    assert experiment.over == [False]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_silent_while_an_experiment_is_stopped(closed, monkeypatch):
    """One line used to stand before it, and none for as long as it took."""
    monkeypatch.setattr(showing, "SILENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    said = []

    def say(line):
        said.append(line)
        if closed:
            raise OSError("the terminal is gone")

    experiment = Stoppable(after=lambda: wait_until(lambda: len(said) > 2, 20, "lines while it is stopped"))
    experiment.id = "abc"
    with stopping(experiment, say):
        pass
    assert experiment.over == [True] and all("stopping the experiment" in line for line in said)


def _ask_to_end(number):
    os.kill(os.getpid(), number)
    time.sleep(5)


def test_a_signal_that_is_ignored_stays_so():
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        experiment = Stoppable()
        with stopping(experiment, print):
            os.kill(os.getpid(), signal.SIGHUP)
        assert experiment.over == [True]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_is_gone_has_computed_nothing():
    process = psutil.Popen([sys.executable, "-c", ""])
    process.wait()
    assert patience.computed(process) == 0.0 and not patience.lives(process) and patience.computed(None) == 0.0
