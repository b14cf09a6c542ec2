"""What NNI's programs print and log, and what a trial leaves in its folder: the lines that tell what went wrong.

Our trials leave their error in words. Of any other, ``causes.py`` looks for it among all that was said.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

from ..runs import ERROR_FILE

__all__ = ["error_in_log", "last_lines", "said_in", "tail", "without_colours", "without_noise"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (\w+) \([^)]*\)+ ?(.*)$")
_AGAIN = re.compile(r"Retry in \d+s$")
"""NNI's connection between tuner and manager makes up for errors that are told so."""
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning)\b")

LINES = 12


def error_in_log(text: str) -> str | None:
    """Return the last error that one of NNI's Python logs tells, without its traceback.

    >>> error_in_log('''[2026-01-01 00:00:00] ERROR (nni.main/MainThread) wrong
    ... Traceback (most recent call last):
    ...   File "x.py", line 1, in f
    ... ValueError: wrong''')
    'ValueError: wrong'
    """
    block: list[str] | None = None
    last: list[str] | None = None
    for line in text.splitlines():
        head = _LOG_LINE.match(line)
        if head:
            serious = head.group(1) in ("ERROR", "CRITICAL") and not _AGAIN.search(head.group(2))
            block = [head.group(2)] if serious else None
            last = block if block is not None else last
        elif block is not None:
            block.append(line)
    if last is None:
        return None
    starts = [index for index, line in enumerate(last) if _EXCEPTION.match(line)]
    if any(line.startswith("Traceback") for line in last) and starts:
        last = last[starts[-1] :]
    return "\n".join(last).strip().removeprefix("nni_dynconv.errors.")


def said_in(folder: Path) -> str:
    """Return what a trial said of its error, in its own words or in all that NNI has of its output."""
    words, output = _read(folder / ERROR_FILE), _read(folder / "trial.stderr")
    return words or output or error_in_log(_read(folder / "trial.log")) or _read(folder / "stderr")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def without_colours(output: str) -> str:
    """Return what a program printed, without the codes that colour it."""
    return _ANSI.sub("", output)


def without_noise(output: str) -> str:
    """Return what ``nnictl`` printed, without lines that help nobody."""
    noise = ("pkg_resources", "Web portal URLs")
    return "\n".join(line for line in without_colours(output).splitlines() if not any(one in line for one in noise))


def last_lines(text: str, count: int) -> str:
    """Return the last few lines."""
    return "\n".join(text.strip().splitlines()[-count:])


def tail(text: str, lines: int = LINES) -> str:
    """Return the last few lines, indented."""
    return indent(last_lines(text, lines), "  ")
