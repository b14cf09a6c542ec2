"""The state of a run in a file, so that another process can show it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..files import write_atomically
from .telling import State, watching

__all__ = ["STATE_FILE", "carried", "read_state"]

STATE_FILE = "phase.json"
PAUSE = 0.5
"""Seconds between two writes of one phase."""


@contextmanager
def carried(folder: Path) -> Iterator[None]:
    """For a block, keep a file in a folder that says where the run is; it is gone after the block."""
    path, last = folder / STATE_FILE, State("", told=0.0)

    def write(state: State) -> None:
        nonlocal last
        if state.phase != last.phase or time.time() - last.told >= PAUSE:
            last = state
            with contextlib.suppress(OSError):  # a full disk is told by what matters
                write_atomically(path, json.dumps(asdict(state)).encode())

    with watching(write):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def read_state(folder: Path) -> State | None:
    """Return where the run of a folder is, or ``None`` where nothing tells."""
    try:
        return State(**json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
