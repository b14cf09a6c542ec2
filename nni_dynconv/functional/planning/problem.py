"""What a call asks for, which decides on its path, and the answer: the path and the reason."""

from __future__ import annotations

from typing import NamedTuple

from .geometry import Geometry
from .modes import Setting

__all__ = ["Choice", "Problem"]


class Problem(NamedTuple):
    """One call, checked; what was measured is remembered by it."""

    geometry: Geometry  # of the whole weight; a sequence is an image of one row
    setting: Setting


class Choice(NamedTuple):
    """The name of a path and the reason for it."""

    path: str
    why: str
