"""Signals to what a process has forked meanwhile, as loaders' workers are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from nni_dynconv.keeping import Stopping


@pytest.fixture
def child(tmp_path):
    """Forked from a block that listens; nothing is said there."""
    said = tmp_path / "said"
    with Stopping(said.write_text).listening():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        yield process
        process.kill()
        process.join(10)
    assert not said.exists()


def test_a_child_can_be_terminated(child):
    """It took note, as its parent would have, and went on: who joined it waited for ever."""
    child.terminate()
    child.join(10)
    assert child.exitcode == -signal.SIGTERM


def test_ctrl_c_is_the_parents_matter(child):
    os.kill(child.pid, signal.SIGINT)
    child.join(0.3)
    assert child.is_alive()
