"""A process that is asked to end: it goes on to the end of its batch, keeps where it is, and ends then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["Stopping"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopping:
    """Takes note of SIGTERM, SIGHUP and Ctrl-C; a second Ctrl-C ends at once.

    Parameters
    ----------
    say
        Is told what was asked.

    Attributes
    ----------
    asked
        The signal that came; ``None``: none did.
    """

    def __init__(self, say: Callable[[str], None] = print):
        self.say = say
        self.asked: int | None = None
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """For a block, take note of signals; one that the process ignores, as under ``nohup``, stays ignored.

        What was asked for and not done by the end of the block is done then.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.getsignal(one) for one in SIGNALS}
        taken = {one: handler for one, handler in before.items() if handler is not signal.SIG_IGN}
        self._before, self._process = taken, os.getpid()
        for one in taken:
            signal.signal(one, self._ask)
        try:
            yield
        finally:
            for one, handler in taken.items():
                signal.signal(one, signal.SIG_DFL if handler is None else handler)
        if self.asked is not None:
            self.end()

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            self._in_a_child(number)
            return
        if self.asked is not None and number == signal.SIGINT:
            self.end()
        self.asked = number
        self.say(f"{signal.Signals(number).name}: the run ends with a checkpoint after this batch.")

    def _in_a_child(self, number: int) -> None:
        """Of a process forked meanwhile, as loaders' workers are: Ctrl-C, which all get, is its parent's matter."""
        if number != signal.SIGINT:
            signal.signal(number, self._before[number] or signal.SIG_DFL)
            os.kill(os.getpid(), number)

    @property
    def status(self) -> int:
        """The status that a shell gives to what the signal ended."""
        return 128 + (self.asked or signal.SIGTERM)

    def end(self) -> NoReturn:
        """End the process as the signal would have, but by an exception.

        Raises
        ------
        KeyboardInterrupt
            It was Ctrl-C.
        SystemExit
            With the status that shells give the signal.
        """
        status, number, self.asked = self.status, self.asked, None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(status)
