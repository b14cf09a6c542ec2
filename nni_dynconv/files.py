"""A file that is written at once or not at all."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PARTIAL", "sync_folder", "write_atomically", "write_whole"]

PARTIAL = ".tmp"
"""How the name of a file ends that is being written."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    write_whole(temporary, content)
    temporary.replace(path)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file to the disk; where that fails, nothing of it is left."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """See to it that names of files are on the disk too, where the system can."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
