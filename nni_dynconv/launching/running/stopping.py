"""What ends a launch from outside: Ctrl-C, SIGTERM and SIGHUP take down with it all that it started."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...phases import Line, State
from ..experiment import LocalExperiment

__all__ = ["stopping"]

ENDING = [one for one in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, one)]
"""Signals by which a launch is ended; the last is of a terminal that is closed."""


@contextmanager
def stopping(experiment: LocalExperiment, say: Callable[[str], None]) -> Iterator[None]:
    """For a block, stop the experiment at its end whatever happens; signals end it like Ctrl-C.

    While the processes are ended, further signals wait: what they ask for is being done.
    """
    with _handled(_interrupt):
        over = False
        try:
            yield
            over = True
        finally:
            with _handled(_wait), _told(experiment, say):
                experiment.stop(over)


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, one) for one in ENDING] if here else []
    heard = [one for one in numbers if signal.getsignal(one) is not signal.SIG_IGN]  # as under `nohup`
    before = [(number, signal.signal(number, handler)) for number in heard]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _wait(number: int, frame: Any) -> None:
    """Nothing: the processes are being ended."""


@contextmanager
def _told(experiment: LocalExperiment, say: Callable[[str], None]) -> Iterator[None]:
    """For a block, tell that the experiment is being stopped, for as long as it takes; a closed terminal hears none."""

    def attempt(text: str) -> None:
        with contextlib.suppress(OSError):
            say(text)

    line = Line(attempt)
    if experiment.id is not None:
        with contextlib.suppress(OSError):
            line.__enter__().show(State("stopping the experiment"))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            line.__exit__()
