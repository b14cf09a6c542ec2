"""The shape of a whole weight, out of those of its parts: measured once for the same ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

__all__ = ["measured_once"]

Measure = Callable[..., tuple[int, ...]]


def measured_once(measure: Measure) -> Measure:
    """Let a function of shapes remember what it returned, where they are numbers and no graph is traced."""
    once = lru_cache(maxsize=4096)(measure)

    def shape(*shapes: Any) -> tuple[int, ...]:
        if torch.compiler.is_compiling():
            return measure(*shapes)
        try:
            return once(*shapes)
        except TypeError:  # a symbolic size: nothing to remember it by
            return measure(*shapes)

    return shape
