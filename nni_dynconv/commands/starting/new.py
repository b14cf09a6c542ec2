"""``nni-dynconv new``. What it writes is in ``templates/``, a folder a task, as the user gets it."""

from __future__ import annotations

import shutil
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ...errors import ConfigError
from ..shared import say

__all__ = ["TEMPLATES", "Task", "new"]

TEMPLATES = Path(__file__).with_name("templates")


class Task(str, Enum):
    """The projects that there are."""

    IMAGE = "image"
    SEQUENCE = "sequence"
    VIDEO = "video"


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty, or not there yet.")],
    task: Annotated[Task, typer.Option(help="What its networks take.")] = Task.IMAGE,
) -> None:
    """Write a small project that runs as it stands.

    Space, data, evaluator, experiment and a test, to be made your own; nothing is downloaded:

        nni-dynconv new mine
        nni-dynconv new mine --task video
    """
    files = write(folder, task)
    say(f"Wrote {', '.join(files)} into {folder}. Next:")
    for line in (
        f"cd {folder}",
        "nni-dynconv check experiment.yml --try",
        "nni-dynconv launch experiment.yml --output runs/first",
    ):
        say(f"  {line}")


def write(folder: Path, task: Task) -> list[str]:
    """Copy the files of a task into a folder, and return their names.

    Raises
    ------
    ConfigError
        The folder has something in it, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not empty. Name a folder that is, or one that is not there yet.")
        source = TEMPLATES / task.value
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except (OSError, shutil.Error) as error:
        raise ConfigError(f"Cannot write into {folder}: {error}.") from None
    return sorted(path.name for path in folder.iterdir())
