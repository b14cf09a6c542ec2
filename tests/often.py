"""Which cases of a test run by default, and which with what is long, by ``make test-whole`` or ``make test-slow``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def by_default(first: Any, *others: Any, of: Iterable[Any], otherwise: str = "whole") -> list[Any]:
    """Return all cases, of which these run by default; the rest is marked ``whole``, or ``slow``.

    Examples
    --------
    >>> [getattr(one, "values", one) for one in by_default("a", of=["a", "b"])]
    ['a', ('b',)]
    """
    often = (first, *others)
    return [one if one in often else pytest.param(one, marks=getattr(pytest.mark, otherwise)) for one in of]


def each_once(*, otherwise: str = "whole", **axes: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrise a test by all combinations, of which as few run by default as hold each value of each axis.

    The rest is marked ``whole``, or ``slow``.

    Examples
    --------
    >>> each_once(op=["conv", "linear"], strict=[False, True]).args[1][1]
    ParameterSet(values=('conv', True), marks=(MarkDecorator(mark=Mark(name='whole', args=(), kwargs={})),), id=...)
    """
    values = [list(axis) for axis in axes.values()]
    often = {tuple(number % len(axis) for axis in values) for number in range(max(map(len, values)))}
    cases = []
    for where in product(*(range(len(axis)) for axis in values)):
        case = [axis[number] for axis, number in zip(values, where, strict=True)]
        cases.append(pytest.param(*case, marks=() if where in often else getattr(pytest.mark, otherwise)))
    return pytest.mark.parametrize(tuple(axes), cases)
