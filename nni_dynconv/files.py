"""A file that is written at once or not at all."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import psutil

__all__ = ["PARTIAL", "clean", "partial_name", "sync_folder", "write_atomically", "write_whole"]

PARTIAL = ".tmp"
"""How the name of a file ends that is being written; before it stands the number of the process that writes."""


def partial_name(name: str) -> str:
    """Return how a file is called while this process writes it."""
    return f"{name}.{os.getpid()}{PARTIAL}"


def clean(path: Path) -> None:
    """Remove what processes that were killed have left of a file beside it."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
        writer = left.name.removesuffix(PARTIAL).rpartition(".")[2]
        if writer.isdigit() and (int(writer) == os.getpid() or not psutil.pid_exists(int(writer))):
            left.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    clean(path)
    temporary = path.with_name(partial_name(path.name))
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
