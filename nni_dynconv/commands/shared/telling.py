"""What a command tells: lines, a report, JSON, and its errors in words, without tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DynConvError, LaunchError

__all__ = ["STDOUT", "aside", "fail", "in_words", "say", "write_json"]

STDOUT = Path("-")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def aside(json: Path | None) -> AbstractContextManager[Any]:
    """For a block, print to the standard error where the standard output is for JSON alone."""
    return redirect_stdout(sys.stderr) if json == STDOUT else nullcontext()


def write_json(text: str, json: Path | None) -> None:
    """Write what ``--json`` asks for: into a file, or for ``-`` to the standard output.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    if json == STDOUT:
        print(text)
    elif json is not None:
        try:
            json.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"Cannot write {json}: {error.strerror or error}.") from None


def in_words(command: Callable[..., int | None]) -> Callable[..., int]:
    """Let a command return its status, with what went wrong told in words."""

    @wraps(command)
    def told(*arguments: Any, **options: Any) -> int:
        try:
            return command(*arguments, **options) or 0
        except LaunchError as error:
            return fail(str(error), 1)
        except DynConvError as error:
            return fail(str(error), 2)
        except KeyboardInterrupt:
            return fail("interrupted; everything that was started is stopped.", 130)
        except Exception as error:
            if os.environ.get("NNI_DYNCONV_DEBUG"):
                raise
            return fail(_unexpected(error), 1)

    return told


def fail(message: str, status: int) -> int:
    """Tell an error and return its status."""
    sys.stdout.flush()
    print(f"nni-dynconv: {message}", file=sys.stderr, flush=True)
    return status


def _unexpected(error: Exception) -> str:
    """An error of the user's code, or of ours, with the place where it happened."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename}, line {place.lineno}"
    return f"{type(error).__name__}: {error} (in {where}; NNI_DYNCONV_DEBUG=1 shows the traceback)"
