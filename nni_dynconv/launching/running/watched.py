"""Who watches an experiment: a lock in its folder that ends with its process, and the mark of what it started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ...files import Lock

__all__ = ["MARK", "Watched", "end_all"]

MARK = "NNI_DYNCONV_LAUNCH"
"""Environment variable that every process of one launch inherits: it tells ours from others'."""
LOCK = "launch.lock"


class Watched:
    """An experiment's folder, as launches share it.

    Parameters
    ----------
    folder
        Of NNI's, with the experiment's id for its name.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = Lock(folder / LOCK)

    def begin(self, mark: str) -> bool:
        """Watch it from now on; return whether nobody else does."""
        return self._lock.take(mark)

    def end(self) -> None:
        """Watch it no longer; the mark stays, for whatever may be left."""
        self._lock.give_back()

    def is_watched(self) -> bool:
        """Whether a launch that lives watches it."""
        return self._lock.is_taken()

    def was_launched(self) -> bool:
        """Whether a launch has started it, and not ``nnictl`` alone."""
        return self._lock.path.is_file()

    def left(self) -> list[psutil.Process]:
        """Return what still runs of it: processes of the last launch, its tuner, its trials."""
        mark = self._lock.path.read_text(encoding="utf-8") if self.was_launched() else ""
        return [one for one in psutil.process_iter() if one.pid != os.getpid() and self._is_of_it(one, mark)]

    def _is_of_it(self, process: psutil.Process, mark: str) -> bool:
        try:
            known = process.environ()
            ours = (mark and known.get(MARK) == mark) or known.get("NNI_EXP_ID") == self.folder.name
            return bool(ours) and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False


def end_all(processes: Callable[[], list[psutil.Process]], patience: float) -> None:
    """End processes, first asking them to, from the top down: a trial ends what it has started, as loaders' workers.

    Parameters
    ----------
    processes
        Returns those that live.
    patience
        Seconds that they have for it.
    """
    asked: set[psutil.Process] = set()
    until = time.monotonic() + patience
    while (left := processes()) and time.monotonic() < until:
        for process in _without_parent(left):
            if process not in asked:
                asked.add(process)
                with contextlib.suppress(psutil.Error):
                    process.terminate()
        time.sleep(0.1)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, 3.0)


def _without_parent(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that none of the others has started."""
    known = {one.pid for one in processes}
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found += [process] if process.ppid() not in known else []
    return found
