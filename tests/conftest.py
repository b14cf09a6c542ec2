"""Tests import the examples as a package, each starts from one seed, and NNI writes into a home of theirs."""

from __future__ import annotations

import atexit
import logging
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ["HOME"] = tempfile.mkdtemp(prefix="nni_dynconv_home_")  # before NNI is imported, in each worker
atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)

from nni_runs import Lab  # noqa: E402 (it imports NNI)


def pytest_collection_modifyitems(items):
    """What waits for NNI's manager comes first, in one process: the others compute meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("nnictl") is None)


@pytest.fixture(autouse=True)
def same_start():
    """What a test draws does not depend on which tests ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` writes down the stack for devices that are not there


@pytest.fixture
def own_nni_folders(tmp_path, monkeypatch):
    """NNI's experiments and settings lie in a folder of the test's, and its log handlers end with the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    yield
    logging.getLogger("nni").handlers.clear()


@pytest.fixture
def lab(tmp_path):
    """A place for real experiments, which must leave no process behind."""
    lab = Lab(tmp_path)
    yield lab
    left = lab.processes()
    lab.end_processes()
    assert not left, f"processes left behind: {[process.cmdline() for process in left]}"
