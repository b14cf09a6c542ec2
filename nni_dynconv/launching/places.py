"""The folders that a launch writes to: what will not go is said before the search."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import LaunchError

__all__ = ["check_places", "check_writable"]

ROOM = 16 * 2**20
"""Bytes that NNI's records and logs of a small experiment need."""


def check_places(document: Mapping[str, Any], path: Path) -> None:
    """Check that NNI and the trials can write.

    Parameters
    ----------
    document
        An experiment's YAML.
    path
        Its place.

    Raises
    ------
    LaunchError
        A folder cannot be written, or its disk is full.
    """
    for folder, what, way_out in _places(document, path):
        check_writable(folder, what, way_out)


def _places(document: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str, str]]:
    home = "`HOME` is where NNI keeps its list of experiments: set it to a folder of yours that can be written."
    yield Path("~/nni-experiments").expanduser(), "NNI's list of experiments", home
    given = document.get("experimentWorkingDirectory")
    if given is not None:
        folder = path.resolve().parent / Path(str(given)).expanduser()
        yield folder, "`experimentWorkingDirectory`", "Name another one in the YAML."
    config = os.environ.get("NNI_CONFIG_DIR")
    if config is not None:
        yield Path(config), "`NNI_CONFIG_DIR`", "Set it to a folder that can be written."
    try:
        yield Path(tempfile.gettempdir()), "the folder for temporary files", "`TMPDIR` names another one."
    except FileNotFoundError as error:
        raise LaunchError(f"There is no folder for temporary files: {error.strerror}. `TMPDIR` names one.") from None


def check_writable(folder: Path, what: str, way_out: str) -> None:
    """Check that files can be made in a folder, or the folder itself.

    Raises
    ------
    LaunchError
        They cannot, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(folder).free
    except (OSError, RuntimeError) as error:  # `expanduser` knows no home
        raise LaunchError(
            f"{_upper(what)}, {folder}, cannot be written: {getattr(error, 'strerror', None) or error}. {way_out}"
        ) from None
    if free < ROOM:
        raise LaunchError(
            f"{_upper(what)}, {folder}, has {free / 2**20:.1f} MiB left on its disk, and an experiment takes "
            f"{ROOM // 2**20} MiB and more. Make room. {way_out}"
        )


def _upper(what: str) -> str:
    return what[0].upper() + what[1:]
