"""``tune``: measure the paths of each convolution on this machine, and remember the fastest."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from ..files import write_atomically
from . import kernels
from .planner import Choice

__all__ = ["Paths", "fastest", "is_tuning", "recall", "tune"]

Paths = dict[str, Callable[[], object]]  # a name, and what computes the convolution that way

SECONDS = 0.03  # for the measurement of one path
_file: ContextVar[Path | None] = ContextVar("nni_dynconv.functional.tuning", default=None)
_known: dict[str, str] = {}


@contextmanager
def tune(file: str | Path | None = None) -> Iterator[None]:
    """Measure every convolution that runs in this block for the first time, by each path that can compute it.

    The fastest path is used from then on, in the block and behind it, and is kept in a file for the next process that
    tunes. What the planner's rules say counts for all other convolutions, and where a mode asks for a certain form.

    Parameters
    ----------
    file
        Where to keep what was measured; by default ``nni_dynconv/paths.json`` in the user's cache
        (``XDG_CACHE_HOME``, or ``~/.cache``). Machines, versions of torch and numbers of threads do not mix in it.

    Examples
    --------
    >>> import tempfile
    >>> from nni_dynconv.functional import conv2d
    >>> x, weight = torch.randn(4, 8, 16, 16), torch.randn(4, 8, 8, 3, 3)
    >>> with tempfile.TemporaryDirectory() as directory, tune(f"{directory}/paths.json"):
    ...     y = conv2d(x, weight)
    """
    path = Path(file) if file is not None else _default_file()
    _known.update(_read(path).get(_machine(), {}))
    token = _file.set(path)
    try:
        yield
    finally:
        _file.reset(token)


def is_tuning() -> bool:
    """Whether a convolution that was never measured is to be measured now."""
    return _file.get() is not None


def recall(problem: object) -> Choice | None:
    """Return the path that was the fastest for a problem, if it was ever measured."""
    path = _known.get(repr(problem)) if _known else None
    return None if path is None else Choice(path, "the fastest of those that `tune` measured on this machine")


def fastest(problem: object, paths: Paths) -> str:
    """Return the fastest path; measure them first if need be, in turns, so that what disturbs one disturbs all."""
    known = _known.get(repr(problem))
    if known in paths:
        return str(known)
    times = {name: float("inf") for name in paths}
    for compute in paths.values():
        compute()  # what happens only the first time
    end = time.perf_counter() + SECONDS * len(paths)
    while len(paths) > 1 and time.perf_counter() < end:
        for name, compute in paths.items():
            begin = time.perf_counter()
            compute()
            times[name] = min(times[name], time.perf_counter() - begin)
    best = min(times, key=lambda name: times[name])
    _known[repr(problem)] = best
    _write(_file.get(), repr(problem), best)
    return best


def _default_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nni_dynconv" / "paths.json"


def _machine() -> str:
    threads, level = torch.get_num_threads(), kernels.LEVELS[kernels.level()] if kernels.loaded() else "no kernels"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"torch {torch.__version__}, {platform.node()}, {device}, {threads} threads, {level}"


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError):  # not there yet, or broken: what is measured now will replace it
        return {}
    return table if isinstance(table, dict) else {}


def _write(path: Path | None, problem: str, best: str) -> None:
    if path is None:
        return
    table = _read(path)
    table.setdefault(_machine(), {})[problem] = best
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(table, indent=1, sort_keys=True).encode())
