"""Where a run is: told by phases, carried by a file, shown as a line."""

from __future__ import annotations

import contextlib
import math
import os
import pty
import threading
import time

from nni_dynconv.phases import STATE_FILE, Line, State, carried, carrying, phase, read_state, showing, shown, watching


def test_a_phase_tells_its_start_each_step_and_the_one_around_it():
    told = []

    def note(state):
        told.append((state.phase, state.done, dict(state.metrics)))

    with watching(note), phase("search", total=4, unit="epoch") as now:
        now.at(1.5, val_loss=0.5)
        with phase("validation"):
            pass
        now.advance()
    assert told == [
        ("search", 0, {}),
        ("search", 1.5, {"val_loss": 0.5}),
        ("validation", 0, {}),
        ("search", 1.5, {"val_loss": 0.5}),
        ("search", 2.5, {"val_loss": 0.5}),
    ]


def test_a_phase_of_another_process_than_the_first_tells_nothing():
    told = []
    with watching(told.append), phase("search", tells=False) as now:
        now.advance()
    assert not told


def test_what_is_left_follows_from_the_pace_and_is_unknown_without_a_total():
    assert State("search", 1, 4, began=0.0, told=10.0).left == 30.0
    assert State("search", 0, 4, began=0.0, told=10.0).left is None
    assert State("search", 3, None).left is None and State("search", 9, 4).share == 1.0


def test_a_file_carries_the_state_and_is_gone_in_the_end(tmp_path):
    with carried(tmp_path), phase("comparing", total=8, unit="architecture") as now:
        read = read_state(tmp_path)
        assert read == now.state and read.phase == "comparing"
    assert not list(tmp_path.iterdir()) and read_state(tmp_path) is None
    (tmp_path / STATE_FILE).write_text("{")
    assert read_state(tmp_path) is None


def test_steps_in_quick_succession_are_not_all_written(tmp_path, monkeypatch):
    monkeypatch.setattr(carrying, "PAUSE", math.inf)
    with carried(tmp_path), phase("search", total=1000) as now:
        for _ in range(500):
            now.advance()
        assert read_state(tmp_path).done == 0
        with phase("comparing"):
            assert read_state(tmp_path).phase == "comparing"


def test_without_a_terminal_each_phase_is_a_line_and_none_is_silent_for_long(monkeypatch):
    monkeypatch.setattr(showing, "SILENCE", math.inf)
    said = []
    with Line(said.append, live=False) as line:
        line.show(State("search", 0, 2, "epoch"), "trial 0")
        line.show(State("search", 1, 2, "epoch"), "trial 0")
        line.show(State("comparing"), "trial 0")
        assert [one.split(",")[0] for one in said] == ["  trial 0: search", "  trial 0: comparing"]
        monkeypatch.setattr(showing, "SILENCE", 0.0)
        until = time.monotonic() + 60
        while len(said) < 3 and time.monotonic() < until:
            time.sleep(0.05)
    assert said[2].startswith("  trial 0: comparing, ")


def test_a_run_that_is_forgotten_is_not_written_any_more(monkeypatch):
    monkeypatch.setattr(showing, "SILENCE", math.inf)
    said = []
    with Line(said.append, live=False) as line:
        line.show(State("search"), "trial 0")
        line.forget("trial 0")
        monkeypatch.setattr(showing, "SILENCE", 0.0)
        line._over.wait(2.5)
    assert len(said) == 1


def read_all(terminal, parts):
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            parts.append(os.read(terminal, 10000))


def test_on_a_terminal_one_line_lives_and_what_is_said_stays(monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    parts = []
    reader = threading.Thread(target=read_all, args=(ours, parts))
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Line() as line:
            assert line.live
            line.show(State("search", 1, 2, "epoch", {"val_loss": 0.25}))
            line.say("trial 0 RUNNING")
    reader.join()
    os.close(ours)
    drawn = b"".join(parts).decode()
    assert "search, epoch 2 of 2" in drawn and "val_loss 0.25" in drawn and "trial 0 RUNNING" in drawn


def test_a_line_is_shown_unless_somebody_watches_already(capsys):
    with shown(), phase("comparing"):
        pass
    assert capsys.readouterr().err.startswith("  comparing, ")
    told = []
    with watching(told.append), shown(), phase("comparing"):
        pass
    with shown(unless=True), phase("comparing"):
        pass
    assert not capsys.readouterr().err and len(told) == 1
