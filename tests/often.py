"""Which cases of a test run by default, and which with what is long, by ``make test-whole``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def by_default(first: Any, *others: Any, of: Iterable[Any]) -> list[Any]:
    """Return all cases, of which these run by default.

    Examples
    --------
    >>> [getattr(one, "values", one) for one in by_default("a", of=["a", "b"])]
    ['a', ('b',)]
    """
    often = (first, *others)
    return [one if one in often else pytest.param(one, marks=pytest.mark.whole) for one in of]
