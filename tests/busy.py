"""A machine that has other work: `python tests/busy.py make search` runs a command beside eight busy processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUSY = 8


@contextmanager
def busy() -> Iterator[None]:
    """Processes that compute all the time, each in a session of its own: Linux shares cores among sessions first."""
    endless = [sys.executable, "-c", "while True: pass"]
    own = [subprocess.Popen(endless, start_new_session=True) for _ in range(BUSY)]
    try:
        yield
    finally:
        for one in own:
            one.kill()
            one.wait()


if __name__ == "__main__":
    with busy():
        status = subprocess.call(sys.argv[1:])
    print(f"beside {BUSY} busy processes: status {status}")
    sys.exit(status)
