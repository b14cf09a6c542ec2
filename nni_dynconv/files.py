"""A file that is written at once or not at all."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PARTIAL", "write_atomically"]

PARTIAL = ".tmp"
"""How the name of a file ends that is being written."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
