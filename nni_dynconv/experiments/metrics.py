"""Results as NNI passes them on: JSON inside JSON, a number or a mapping whose ``default`` is the number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["number_in", "unpacked"]


def unpacked(data: str) -> Any:
    r"""Return what a trial reported, from the text that NNI keeps.

    >>> unpacked('"{\\"default\\": 0.5, \\"proposal\\": 3}"')
    {'default': 0.5, 'proposal': 3}
    """
    value = json.loads(data)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:  # a string, or a number of more digits than Python reads
        return value


def number_in(value: Any) -> float | None:
    """Return the number in what a trial reported, finite or not; ``None`` where there is none.

    >>> number_in({"default": "0.5", "loss": 2}), number_in({"loss": 2})
    (0.5, None)
    """
    if isinstance(value, Mapping):
        value = value.get("default")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # JSON has numbers of any length
        return None
