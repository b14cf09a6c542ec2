"""A file that is written at once or not at all, one that keeps others away, and one that tells whether it is whole."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path
from typing import IO, NamedTuple

import psutil

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "PARTIAL",
    "Lock",
    "clean",
    "partial_name",
    "seal",
    "sync_folder",
    "unseal",
    "write_atomically",
    "write_whole",
]

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


class Lock:
    """A lock that ends with the process that has it, however that ends; what it starts does not inherit it.

    Parameters
    ----------
    path
        A file for nothing else. Its content is what the last that had it wrote.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: IO[str] | None = None

    def take(self, content: str) -> bool:
        """Take it; return whether nobody else has it.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        file = self._opened()
        if file is None:
            return False
        file.truncate(0)
        file.write(content)
        file.flush()
        self._file = file
        return True

    def _opened(self) -> IO[str] | None:
        """Open the file and lock it; one that was removed meanwhile is not the one that others see."""
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            if self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(file.fileno())):
                return file
            file.close()

    def give_back(self, remove: bool = False) -> None:
        """Give it back, if this one has it.

        Parameters
        ----------
        remove
            Whether the file goes too.
        """
        if self._file is None:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def is_taken(self) -> bool:
        """Whether somebody has it."""
        if fcntl is None or not self.path.is_file():
            return False
        with self.path.open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class Sealed(NamedTuple):
    """What a file with a checksum holds: the version of its format, its content, and whether that is as written."""

    version: str
    content: bytes
    is_whole: bool


def seal(mark: bytes, version: int, content: bytes) -> bytes:
    """Return a file whose first line says what it is, in which format, and the checksum of the rest."""
    return mark + f"{version} {hashlib.sha256(content).hexdigest()}\n".encode() + content


def unseal(mark: bytes, raw: bytes) -> Sealed | None:
    """Return what :func:`seal` was given; ``None`` where the first line is none of its.

    >>> unseal(b"mine ", seal(b"mine ", 1, b"all")), unseal(b"yours ", b"mine 1 0")
    (Sealed(version='1', content=b'all', is_whole=True), None)
    """
    head, _, content = raw.partition(b"\n")
    words = head.removeprefix(mark).split()
    if not head.startswith(mark) or len(words) != 2:
        return None
    whole = hashlib.sha256(content).hexdigest().encode() == words[1]
    return Sealed(words[0].decode(errors="replace"), content, whole)
