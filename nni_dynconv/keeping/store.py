"""A folder of checkpoints: the last two, each written at once or not at all, with a checksum and what it is of."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files import PARTIAL, seal, unseal, write_atomically
from .encoding import decode, encode

__all__ = ["Store", "versions"]

FORMAT = 2
SUFFIX = ".checkpoint"
DEPTH = 2
"""How many are kept: the newest, and the one before."""
MARK = b"nni_dynconv checkpoint "


class _DamagedError(CheckpointError):
    """Another checkpoint may do."""


def versions() -> dict[str, str]:
    """Return the versions of what a search computes with: another one may add up in another order."""
    names = ("nni", "pytorch_lightning")
    return {"python": platform.python_version(), "torch": torch.__version__, **{one: version(one) for one in names}}


class Store:
    """Writes and reads the checkpoints of one run.

    Parameters
    ----------
    folder
        Made where it is missing; nothing else may lie in it.
    about
        What the run is: plain data, settings and versions. A checkpoint of anything else is refused.
    say
        Is told what the user should know.

    Attributes
    ----------
    newest
        The file that was read or written last; ``None`` before.
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any], say: Callable[[str], None] = print):
        self.folder, self.say = Path(folder), say
        self.about = decode(encode({**about, "versions": versions()}))
        self.newest: Path | None = None

    def files(self) -> list[Path]:
        """Return the checkpoints that are there, oldest first."""
        return sorted(one for one in self.folder.glob(f"*{SUFFIX}") if one.stem.isdecimal())

    def write(self, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, and remove those older than the one before it.

        Raises
        ------
        CheckpointError
            It holds what cannot be kept, or cannot be written; those that are there stay.
        """
        number = 1 + max((int(one.stem) for one in self.files()), default=0)
        path = self.folder / f"{number:08d}{SUFFIX}"
        body = encode({"about": self.about, "state": state})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, seal(MARK, FORMAT, body))
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint `{path}` cannot be written: {error}\nThe ones before it are as they were. Make room, "
                f"and start the same again: it goes on from the newest."
            ) from error
        kept = {path, self.newest or path}
        for one in [*self.files()[:-DEPTH], *self.folder.glob(f"*{PARTIAL}")]:
            if one not in kept:
                one.unlink(missing_ok=True)
        self.newest = path
        return path

    def read(self) -> Any:
        """Return the state of the newest checkpoint that is whole; ``None`` where there is none at all.

        A damaged one is removed, and that is said.

        Raises
        ------
        CheckpointError
            All are damaged, or the one to read is of another run, of other settings, or of other versions.
        """
        problems = []
        for path in reversed(self.files()):
            try:
                found = _read(path)
            except _DamagedError as error:
                problems.append(f"`{path}` is damaged: {error}")
                continue
            self._check(path, found["about"])
            for words in problems:
                self.say(f"{words} The one before it is taken, `{path.name}`.")
            for later in [one for one in self.files() if one.name > path.name]:
                later.unlink()
            self.newest = path
            return found["state"]
        if problems:
            raise CheckpointError(
                "No checkpoint can be read.\n"
                + "\n".join(problems)
                + f"\nRemove the folder `{self.folder}` to begin anew."
            )
        return None

    def _check(self, path: Path, theirs: Mapping[str, Any]) -> None:
        for name, here, there in _differences(self.about, theirs):
            raise CheckpointError(
                f"The checkpoint `{path}` is of another run: `{name}` is {here} here, but {there} there. Go on with "
                f"what it was written with, or remove the folder `{self.folder}` to begin anew."
            )

    def clear(self) -> None:
        """Remove all: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.newest = None


def _read(path: Path) -> Any:
    try:
        sealed = unseal(MARK, path.read_bytes())
    except OSError as error:
        raise _DamagedError(str(error)) from error
    if sealed is None:
        raise _DamagedError("it does not begin as a checkpoint does.")
    if not sealed.is_whole:
        raise _DamagedError("its checksum is not the one that it was written with.")
    if sealed.version != str(FORMAT):
        raise CheckpointError(
            f"The checkpoint `{path}` has format {sealed.version}, but this version reads {FORMAT}. "
            f"Update nni_dynconv, or remove the folder to begin anew."
        )
    try:
        found = decode(sealed.content)
    except CheckpointError as error:
        raise _DamagedError(str(error)) from error
    if not isinstance(found, dict) or set(found) != {"about", "state"} or not isinstance(found["about"], dict):
        raise _DamagedError("it does not hold what a checkpoint does.")
    return found


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two descriptions differ, and what stands there in each."""
    for key in dict.fromkeys([*ours, *theirs]):
        here, there, place = ours.get(key, "missing"), theirs.get(key, "missing"), f"{path}.{key}".lstrip(".")
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from _differences(here, there, place)
        elif here != there:
            yield place, here, there
