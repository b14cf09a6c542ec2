"""``history.jsonl`` of a run: what happened, a line at a time. What it means is not known here."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["History"]


class History:
    """What a run notes as it goes on, in order.

    Parameters
    ----------
    file
        Need not be there yet. Lines are added to it, by processes that are forked too.

    Examples
    --------
    >>> import tempfile
    >>> history = History(Path(tempfile.mkdtemp(), "history.jsonl"))
    >>> history.add("epoch", number=1, loss=float("nan"))
    >>> history.of("epoch")
    [{'number': 1, 'loss': None}]
    """

    def __init__(self, file: Path):
        self.file = file

    def add(self, kind: str, **facts: Any) -> None:
        """Note something; numbers that are not finite are ``None``."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **_plain(facts)}) + "\n")

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def cut(self, size: int) -> None:
        """Forget what came after it was so long: a run that goes on notes it once more."""
        if self.size > size:
            os.truncate(self.file, size)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return what was noted of a kind; a line that is cut off is left out."""
        if not self.file.is_file():
            return []
        rows = map(_read, self.file.read_text(encoding="utf-8").splitlines())
        return [{key: one for key, one in row.items() if key != "kind"} for row in rows if row.get("kind") == kind]


def _read(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):  # the process was killed as it wrote
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(map(_plain, value))
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) or hasattr(value, "__float__"):
        return float(value) if math.isfinite(float(value)) else None
    return str(value)
