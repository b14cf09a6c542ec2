"""The file of the tuner's state: the newest and the one before, each written at once, with a checksum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import RunError
from ..files import seal, unseal, write_atomically

__all__ = ["STATE_FILE", "is_there", "read_state", "write_state"]

State = TypeVar("State")

STATE_FILE = "dynamic_weight_tuner.state"
BEFORE = ".before"
FORMAT = 2
MARK = b"nni_dynconv tuner state "
EARLIER = (b"{", b"PK")
"""How the files of format 1 begin, which have no checksum: JSON, or what torch saves."""


def write_state(path: Path, content: bytes) -> None:
    """Write a state; the one that was there becomes the one before.

    Raises
    ------
    RunError
        It cannot be written; what was there can be read.
    """
    try:
        old = path.read_bytes() if path.is_file() else b""
        if old and _is_whole(old):
            write_atomically(_before(path), old)
        write_atomically(path, seal(MARK, FORMAT, content))
    except OSError as error:
        raise RunError(
            f"The tuner's state `{path}` cannot be written: {error}\nIt is as it was. Make room, and resume the "
            f"experiment."
        ) from error


def is_there(path: Path) -> bool:
    """Whether there is a state, or the one before."""
    return path.is_file() or _before(path).is_file()


def _before(path: Path) -> Path:
    return path.with_name(path.name + BEFORE)


def _is_whole(raw: bytes) -> bool:
    try:
        return bool(_checked(raw))
    except RunError:
        return False


def read_state(path: Path, unpack: Callable[[bytes], State], say: Callable[[str], None]) -> State:
    """Return the newest state that is whole.

    Parameters
    ----------
    unpack
        Reads what was written.
    say
        Is told that the one before is taken, and why.

    Raises
    ------
    RunError
        There is none, or those that are there are damaged, or of a newer version.
    """
    there = [one for one in (path, _before(path)) if one.is_file()]
    problems: list[str] = []
    for one in there:
        try:
            state = unpack(_checked(one.read_bytes()))
        except RunError as error:
            problems.append(f"`{one}`: {error}")
        except Exception as error:  # whatever JSON, torch and zip raise of what is damaged
            problems.append(f"`{one}` is damaged: {type(error).__name__}: {error}")
        else:
            for problem in problems:
                say(f"{problem} The state before it is taken: what the tuner did last is not in it.")
            return state
    raise RunError(
        "The tuner's state cannot be read.\n" + "\n".join(problems) + "\nStart the experiment anew; what its trials "
        "found lies in their folders."
    )


def _checked(raw: bytes) -> bytes:
    if raw.startswith(EARLIER):
        return raw
    sealed = unseal(MARK, raw)
    if sealed is None or not sealed.is_whole:
        raise RunError("it is damaged: its checksum is not the one that it was written with.")
    if sealed.version != str(FORMAT):
        raise RunError(
            f"it has format {sealed.version}, but this version reads {FORMAT}. If a newer version "
            f"wrote it, update nni_dynconv."
        )
    return sealed.content
