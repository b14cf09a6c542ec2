"""Tests import the examples as a package, and NNI keeps what it writes in a home of theirs."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ["HOME"] = tempfile.mkdtemp(prefix="nni_dynconv_home_")  # before NNI is imported, in each worker
atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
