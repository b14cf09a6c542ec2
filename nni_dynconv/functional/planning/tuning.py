"""``tune``: measure the paths of each call on this machine, and remember the fastest."""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import __version__
from ...errors import ConfigError
from ...files import write_atomically
from .. import library

__all__ = ["Paths", "fastest", "is_tuning", "recall", "state", "trial", "tune", "wait_for"]

Paths = dict[str, Callable[[], object]]  # a name, and what computes the call that way

SECONDS = 0.03  # for the measurement of one path
QUEUED = 10  # calls handed at once to a device other than the CPU: in a network too, launching hides behind computing
_known: dict[int, dict[str, str]] = {}  # by number of threads: the fastest path of each problem
_changes = itertools.count(1)
_last_change = 0


class _File(NamedTuple):
    path: Path
    kept: dict[int, dict[str, str]]  # what the file holds for some numbers of threads


_file: ContextVar[_File | None] = ContextVar("nni_dynconv.functional.planning.tuning", default=None)
is_tuning = (
    _file.get
)  # whether what was never measured is to be measured now; every call asks, so no function of Python's


@contextmanager
def tune(file: str | Path | None = None) -> Iterator[None]:
    """Measure every convolution that runs in this block for the first time, by each path that can compute it.

    So is every convolution or linear map whose weight is given by factors (:class:`~nni_dynconv.functional.LowRank`),
    with the weight formed and with the factors applied.

    The fastest path is used from then on, in the block and behind it, and is kept in a file for the next process that
    tunes. What this process has measured before is kept in the file too, once it runs in the block. What the planner's
    rules say counts for all other convolutions, and where a mode asks for a certain form.

    Parameters
    ----------
    file
        Where to keep what was measured; by default ``nni_dynconv/paths.json`` in the user's cache
        (``XDG_CACHE_HOME``, or ``~/.cache``). Machines, versions of torch and of this package, and numbers of threads
        do not mix, in it or in a process.

    Examples
    --------
    >>> import tempfile
    >>> from nni_dynconv.functional import conv2d
    >>> x, weight = torch.randn(4, 8, 16, 16), torch.randn(4, 8, 8, 3, 3)
    >>> with tempfile.TemporaryDirectory() as directory, tune(f"{directory}/paths.json"):
    ...     y = conv2d(x, weight)
    """
    opened = _File(Path(file) if file is not None else _default_file(), {})
    _read_known(opened, _threads())
    token = _file.set(opened)
    try:
        yield
    finally:
        _file.reset(token)


def recall(problem: object) -> str | None:
    """Return the path that was the fastest for a problem, if it was ever measured."""
    return _known.get(_threads(), {}).get(repr(problem)) if _known else None


def fastest(problem: object, paths: Paths, device: torch.device) -> str:
    """Return the fastest path on a device; measure them first if need be, in turns: what disturbs one disturbs all."""
    threads, name, opened = _threads(), repr(problem), _file.get()
    if opened is not None and threads not in opened.kept:
        _read_known(opened, threads)
    best = _known.get(threads, {}).get(name)
    if best is None or best not in paths:
        best = _measure(paths, device)
        _learn(threads, {name: best})
    if opened is not None and opened.kept[threads].get(name) != best:
        opened.kept[threads][name] = best
        _write(opened.path, threads, name, best)
    return best


def trial(run: Callable[..., Tensor], path: str, *tensors: Tensor | None) -> Callable[[], object]:
    """Return what computes ``run(path, *tensors)``, with the gradients of those tensors that want them."""
    own = [None if one is None else one.detach().requires_grad_(one.requires_grad) for one in tensors]
    leaves = [one for one in own if one is not None and one.requires_grad]

    def compute() -> object:
        y = run(path, *own)
        return torch.autograd.grad(y, leaves, torch.ones_like(y)) if y.requires_grad else y

    return compute


def state() -> tuple[int, int] | None:
    """Return what changes whenever :func:`recall` may say something else, so that older plans no longer count."""
    return (_threads(), _last_change) if _known else None


def _threads() -> int:
    return torch.get_num_threads()


# What `torch.compiler.assume_constant_result` does, which would load the compiler; graphs guard the number.
_threads._dynamo_marked_constant = True  # type: ignore[attr-defined]


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told to; a CPU always has.

    Raises
    ------
    ConfigError
        torch knows no way to wait for it.
    """
    if device.type in ("cpu", "meta"):
        return
    synchronize = getattr(getattr(torch, device.type, None), "synchronize", None)
    if synchronize is None:
        raise ConfigError(
            f"`tune` cannot measure on `{device}`: there is no `torch.{device.type}.synchronize` to wait for it. Leave "
            "`tune` out: the planner's rules serve there."
        )
    synchronize(*([device] if device.type == "cuda" else []))


def _measure(paths: Paths, device: torch.device) -> str:
    times = {name: float("inf") for name in paths}
    calls = 1 if device.type == "cpu" else QUEUED
    for compute in paths.values():
        compute()  # what happens only the first time, such as measuring the convolutions that it is made of
    end = time.perf_counter() + SECONDS * len(paths)
    with _paused():
        while len(paths) > 1 and time.perf_counter() < end:
            for name, compute in paths.items():
                times[name] = min(times[name], _time(compute, calls, device))
    return min(times, key=lambda name: times[name])


@contextmanager
def _paused() -> Iterator[None]:
    """Let the calls of a block take what is known, as they will outside of ``tune``, which looks it up at a cost."""
    token = _file.set(None)
    try:
        yield
    finally:
        _file.reset(token)


def _time(compute: Callable[[], object], calls: int, device: torch.device) -> float:
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(calls):
        compute()
    wait_for(device)
    return time.perf_counter() - begin


def _learn(threads: int, fastest: Mapping[str, str]) -> None:
    global _last_change
    if fastest:
        _known.setdefault(threads, {}).update(fastest)
        _last_change = next(_changes)


def _default_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nni_dynconv" / "paths.json"


def _machine(threads: int) -> str:
    level = library.LEVELS[library.level()] if library.loaded() else "no kernels"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = f"nni_dynconv {__version__}, torch {torch.__version__}"
    return f"{versions}, {platform.node()}, {device}, {threads} threads, {level}"


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError):  # not there yet, or broken: what is measured now will replace it
        return {}
    return table if isinstance(table, dict) else {}


def _read_known(opened: _File, threads: int) -> None:
    """Learn what a file holds for a number of threads."""
    found = _read(opened.path).get(_machine(threads))
    found = found if isinstance(found, dict) else {}
    opened.kept[threads] = {problem: path for problem, path in found.items() if isinstance(path, str)}
    _learn(threads, opened.kept[threads])


def _write(path: Path, threads: int, problem: str, best: str) -> None:
    table = _read(path)
    own = table.get(_machine(threads))
    table[_machine(threads)] = {**(own if isinstance(own, dict) else {}), problem: best}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(table, indent=1, sort_keys=True).encode())
