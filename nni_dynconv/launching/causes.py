"""Which of a program's errors ended it, out of all that it wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from .nni_logs import last_lines, without_colours

__all__ = ["cause_in"]

CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
ASIDE = ("Exception ignored in", "Exception in thread", "Error in atexit", "Error in sys.")
OURS = "nni_dynconv.errors."
LINES = 12
_NEW = re.compile(r"^\[\d{4}-\d\d-\d\d|^\S+\.py:\d+: \w*Warning\b")


def cause_in(text: str) -> str:
    """Return the error that ended a program, out of all that it wrote; its last lines where there is none.

    Of errors that followed from each other it is the last one, which was told to whoever called; what threads,
    ``__del__`` and the like say as a program shuts down comes after it and is not meant. One of this package's is told
    without its traceback.

    >>> print(cause_in('''Traceback (most recent call last):
    ...   File "task.py", line 3, in f
    ...     y = x[4]
    ... IndexError: list index out of range
    ... Exception ignored in: <function __del__>
    ... Traceback (most recent call last):
    ...   File "pool.py", line 9, in __del__
    ... AttributeError: it is closed'''))
    IndexError: list index out of range
      File "task.py", line 3, in f
        y = x[4]
    """
    meant = [one for one in _tracebacks(without_colours(text).splitlines()) if not one.aside]
    if not meant:
        return last_lines(text, LINES)
    cause, *rest = meant
    for one in takewhile(lambda one: one.follows, rest):
        cause = one
    if cause.error.startswith(OURS):
        return cause.error.removeprefix(OURS)
    return "\n".join([cause.error, *cause.place])


class _Block(NamedTuple):
    """One traceback: its error, the lines of its innermost place, and how it is connected with what stands before."""

    error: str
    place: list[str]
    follows: bool
    aside: bool


def _tracebacks(lines: list[str]) -> Iterator[_Block]:
    before: list[str] = []
    number = 0
    while number < len(lines):
        if not lines[number].startswith("Traceback (most recent call last)"):
            before.append(lines[number])
            number += 1
            continue
        end = number + 1
        while end < len(lines) and lines[end].startswith((" ", "\t")):
            end += 1
        last = end + 1
        while last < len(lines) and not _ends_error(lines[last]):
            last += 1
        near = next((one for one in reversed(before) if one.strip()), "")
        error, place = "\n".join(lines[end:last]).strip(), _place(lines[number + 1 : end])
        yield _Block(error, place, near.startswith(CHAINED), near.startswith(ASIDE))
        before, number = [], last


def _ends_error(line: str) -> bool:
    return not line.strip() or line.startswith(("Traceback (most", *ASIDE, *CHAINED)) or bool(_NEW.match(line))


def _place(frames: list[str]) -> list[str]:
    """Return the innermost frame that is not a library's, or the innermost; with the line that was run."""
    starts = [place for place, line in enumerate(frames) if line.startswith("  File ")]
    own = [place for place in starts if "site-packages" not in frames[place]] or starts
    return frames[own[-1] : own[-1] + 2] if own else []
