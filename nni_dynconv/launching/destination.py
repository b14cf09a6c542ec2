"""Where a launch leaves its run: what lies there already is said, and a run that is not over is not written over.

What is left there in the end is in ``results.py``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import LaunchError
from ..files import Lock
from .places import check_writable

__all__ = ["UNFINISHED", "Destination"]

FINISHED = "experiment.json"
UNFINISHED = "unfinished.json"


class Destination:
    """The folder of ``--output``, or none.

    Parameters
    ----------
    output
        As the user named it.
    """

    def __init__(self, output: str | Path | None):
        self.folder = None if output is None else Path(output)

    @contextmanager
    def held(self) -> Iterator[None]:
        """For a block, keep other launches away from the folder, by a lock beside it that ends with this process.

        Raises
        ------
        LaunchError
            Another launch has it, or nothing can be written there.
        """
        if self.folder is None:
            yield
            return
        folder = self.folder.resolve()
        check_writable(folder.parent, "the folder of `--output`", "Name another folder.")
        lock = Lock(folder.parent / f".{folder.name}.lock")
        try:
            taken = lock.take("")
        except OSError as error:
            raise LaunchError(
                f"`--output` cannot be {self.folder}: {error.strerror or error}. Name another folder."
            ) from None
        if not taken:
            raise LaunchError(
                f"Another launch is under way whose `--output` is {self.folder} too. Name another folder, or wait for "
                f"its end."
            )
        try:
            yield
        finally:
            lock.give_back(remove=True)

    @property
    def is_free(self) -> bool:
        """Whether no results lie there, so that nothing is harmed by others."""
        return self.folder is not None and not (self.folder / FINISHED).exists()

    def check(self, say: Callable[[str], None], resumed: str | None = None) -> None:
        """Say what will be replaced.

        Parameters
        ----------
        resumed
            The experiment that goes on.

        Raises
        ------
        LaunchError
            Another experiment's run lies there, and is not over.
        """
        if self.folder is None:
            return
        left = _read(self.folder / UNFINISHED)
        if left is not None and left.get("experiment_id") != resumed:
            known = left.get("experiment_id")
            raise LaunchError(
                f"`--output` is {self.folder}, where the run of experiment {known} belongs, which is not over. "
                f"`nni-dynconv resume {known} --output {self.folder}` goes on with it; or name another folder; or "
                f"delete {self.folder / UNFINISHED} to give it up."
            )
        before = _read(self.folder / FINISHED)
        if before is not None:
            say(
                f"`--output` {self.folder} holds the run of experiment {before.get('experiment_id')}, result "
                f"{before.get('result')}. It is replaced when this one is over."
            )

    def mark(self, experiment: str | None) -> None:
        """Note that a run has results, and is not over; the folder that takes its place in the end has no such note."""
        if self.folder is None or (self.folder / UNFINISHED).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / UNFINISHED).write_text(json.dumps({"experiment_id": experiment}) + "\n", encoding="utf-8")

    def over(self) -> None:
        """Take the note back: the experiment has ended, whatever it brought."""
        if self.folder is None:
            return
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what lies there stays
            self.folder.rmdir()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
