"""Files that belong together, written as one: a description in JSON, which tells the checksums of all, and the others.

A reader, or a crash, finds the old files or the new ones. The new ones are first written beside the old, under names of
their own; the description then takes its place, which counts; last the others take theirs. A description finds its
files also where they could not be moved any more.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..files import PARTIAL, clean, partial_name, sync_folder, write_atomically, write_whole

__all__ = ["FIRST_CHECKED", "FORMAT", "check_format", "pack", "read_folder", "unpack", "write_folder"]

FORMAT = 4
READABLE = (1, 2, 3, FORMAT)
"""Format 1 has one base for all sites, full deltas, and chunked controllers without signs; until 2 bases are flat;
until 3 the forward is a graph of torch's functions, and files have no checksums."""
FIRST_CHECKED = 4
"""The first format whose files have checksums."""
BLANK = "0" * 64
_MARK = b'"checksum": "'


def pack(main: str, description: Mapping[str, Any], others: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files by name; the description tells the checksums of the others and its own.

    Parameters
    ----------
    main
        Name of the description's file.
    """
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}
    whole = {"format": description["format"], "checksum": BLANK, "files": sums, **description}
    text = (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()
    own = hashlib.sha256(text).hexdigest()
    return {main: text.replace(BLANK.encode(), own.encode(), 1), **others}


def unpack(main: str, read: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the description and the other files, whose checksums are right.

    Parameters
    ----------
    read
        Returns a file's content by its name and, of all but the description, its checksum; the name is all there is in
        files of earlier formats.

    Raises
    ------
    ExportError
        One is damaged, or of another description.
    """
    text = read(main, None)
    description = json.loads(text.decode())
    if not isinstance(description, dict) or "format" not in description:
        raise ExportError(f"`{main}` has no format.")
    check_format(description["format"])
    if description["format"] < FIRST_CHECKED:
        return description, {}
    if _own_sum(text) != description.get("checksum"):
        raise ExportError(f"`{main}` is damaged: its checksum is not the one that it was written with.")
    others = {}
    for name, known in description["files"].items():
        if Path(name).name != name:
            raise ExportError(f"`{main}` names a file `{name}` outside its folder.")
        others[name] = read(name, known)
        if hashlib.sha256(others[name]).hexdigest() != known:
            raise ExportError(
                f"`{name}` is damaged, or of another save than `{main}`: its checksum is not the one told there."
            )
    return description, others


def check_format(written: Any) -> None:
    """Check that a file is of a format that this version reads.

    Raises
    ------
    ExportError
        It is not.
    """
    newer = (
        " It was written by a newer version: update nni_dynconv." if type(written) is int and written > FORMAT else ""
    )
    if written not in READABLE or type(written) is not int:
        raise ExportError(f"it has format {written}, but this version reads {READABLE}.{newer}")


def _own_sum(text: bytes) -> str:
    place = text.find(_MARK) + len(_MARK)
    blanked = text[:place] + BLANK.encode() + text[place + len(BLANK) :]
    return hashlib.sha256(blanked).hexdigest()


def write_folder(folder: Path, main: str, files: Mapping[str, bytes]) -> None:
    """Write files as one.

    Parameters
    ----------
    files
        As :func:`pack` made them.

    Raises
    ------
    ExportError
        They cannot be written; the folder holds what it held then.
    """
    waiting = {name: _waiting(folder, name, content) for name, content in files.items() if name != main}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in waiting.items():
            clean(folder / name)
            write_whole(path, files[name])
        write_atomically(folder / main, files[main])
    except OSError as error:
        for path in waiting.values():
            path.unlink(missing_ok=True)
        raise ExportError(
            f"`{folder}` cannot be written: {error}\nIt holds what it held. Make room, or give another folder."
        ) from error
    for name, path in waiting.items():
        path.replace(folder / name)
    sync_folder(folder)


def read_folder(folder: Path, main: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read what :func:`write_folder` wrote; a save that goes on meanwhile is waited for by reading again.

    Raises
    ------
    ExportError
        Something is damaged.
    OSError
        Something is not there.
    """

    def read(name: str, known: str | None) -> bytes:
        path = folder / name
        if known is None:
            return path.read_bytes()
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() == known:
            return content
        waiting = next(folder.glob(f"{glob.escape(_named(name, known))}.*{PARTIAL}"), None)
        return content if waiting is None else waiting.read_bytes()

    before = (folder / main).read_bytes()
    try:
        return unpack(main, read)
    except (ExportError, OSError):
        if (folder / main).read_bytes() == before:
            raise
        return unpack(main, read)


def _waiting(folder: Path, name: str, content: bytes) -> Path:
    return folder / partial_name(_named(name, hashlib.sha256(content).hexdigest()))


def _named(name: str, known: str) -> str:
    return f"{name}.{known[:16]}"
