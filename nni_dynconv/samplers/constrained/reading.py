"""NNI's constraints, read into what can be judged before all labels are chosen: sums within limits, and tables."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from nni.mutable import Constraint, ExpressionConstraint
from nni.mutable.symbol import Symbol, SymbolicExpression

__all__ = ["Check", "Total", "read"]

MOST_CELLS = 4096
"""Of one table. What depends on more combinations of candidates is checked where its last label is chosen."""

Candidates = Mapping[str, Sequence[Any]]
LIMITS: dict[Callable[..., Any], Callable[[float, bool], tuple[float, float]]] = {
    operator.le: lambda b, whole: (-math.inf, math.floor(b) if whole else b),
    operator.lt: lambda b, whole: (-math.inf, math.ceil(b) - 1 if whole else b),
    operator.ge: lambda b, whole: (math.ceil(b) if whole else b, math.inf),
    operator.gt: lambda b, whole: (math.floor(b) + 1 if whole else b, math.inf),
    operator.eq: lambda b, whole: (b, b),
}
"""Least and most that a sum may be, of whole numbers or not, to compare so with a bound."""


class Total(NamedTuple):
    """A sum that must lie within limits.

    Parameters
    ----------
    terms
        Places of labels, rising, and the term's value for each combination of their candidates.
    least, most
        Its limits.
    slack
        By how much these are too wide. Where the terms are no whole numbers, a sum in another order may round to
        another side of them: then it is a billionth of the terms, and what keeps them is asked of NNI in the end.
    """

    terms: dict[tuple[int, ...], np.ndarray]
    least: float
    most: float
    slack: float


class Check(NamedTuple):
    """What must hold for some labels.

    Parameters
    ----------
    places
        Of these labels, rising.
    table
        Whether it holds, for each combination of their candidates; ``None`` where these are too many.
    holds
        Asked with a value for each of these labels.
    """

    places: tuple[int, ...]
    table: np.ndarray | None
    holds: Callable[[dict[str, Any]], bool]


def read(constraints: Iterable[Constraint], candidates: Candidates) -> tuple[list[Total], list[Check]]:
    """Return what a sample must keep.

    Parameters
    ----------
    constraints
        NNI's, over labels among these.
    candidates
        Of each label, in the order in which labels are chosen.
    """
    totals: list[Total] = []
    checks: list[Check] = []
    for one in constraints:
        for part in _parts(one.expression) if isinstance(one, ExpressionConstraint) else [one]:
            total = None if isinstance(part, Constraint) else _total(part, candidates)
            if total is None:
                checks.append(_check(part, candidates))
            else:
                totals.append(total)
    return totals, checks


def _parts(expression: Any) -> list[Any]:
    """Return what an expression joins by ``&``."""
    if getattr(expression, "function", None) is operator.and_:
        return [part for side in expression.arguments for part in _parts(side)]
    return [expression]


# Sums


def _total(comparison: Any, candidates: Candidates) -> Total | None:
    """Read a comparison of sums, or of products of positive numbers, whose terms have few labels each."""
    if getattr(comparison, "function", None) not in LIMITS:
        return None
    left, right = comparison.arguments
    summands = [*_summands(left, 1), *_summands(right, -1)]
    found = _sum(summands, candidates, comparison.function)
    return found if found is not None else _product(summands, candidates, comparison.function)


def _summands(node: Any, sign: float) -> list[tuple[float, Any]]:
    """Return the terms of a sum with their factors."""
    function = getattr(node, "function", None)  # a symbol has none
    if function is operator.add:
        return [one for side in node.arguments for one in _summands(side, sign)]
    if function is operator.sub:
        return [*_summands(node.arguments[0], sign), *_summands(node.arguments[1], -sign)]
    if function is operator.neg:
        return _summands(node.arguments[0], -sign)
    if function is operator.mul:
        for factor, other in (node.arguments, node.arguments[::-1]):
            if _is_number(factor):
                return _summands(other, sign * factor)
    return [(sign, node)]


def _sum(summands: Iterable[tuple[float, Any]], candidates: Candidates, function: Callable[..., Any]) -> Total | None:
    bound = 0.0
    terms: dict[tuple[int, ...], Any] = {}
    for sign, node in summands:
        if _is_number(node):
            bound -= sign * node
            continue
        if not isinstance(node, SymbolicExpression):  # such as a word
            return None
        places = _places(node, candidates)
        table = _numbers(node, places, candidates)
        if table is None:
            return None
        terms[places] = terms.get(places, 0) + sign * table
    return _within(terms, bound, function)


def _product(
    summands: Sequence[tuple[float, Any]], candidates: Candidates, function: Callable[..., Any]
) -> Total | None:
    """Read a product of positive numbers on one side of a positive bound, as the sum of its logarithms."""
    products = [one for one in summands if not _is_number(one[1])]
    bound = -sum(sign * node for sign, node in summands if _is_number(node))
    if len(products) != 1 or (sign := products[0][0]) * bound <= 0:
        return None
    terms: dict[tuple[int, ...], Any] = {}
    for factor in _factors(products[0][1]):
        places = _places(factor, candidates)
        table = _numbers(factor, places, candidates)
        if table is None or (table <= 0).any():
            return None
        terms[places] = terms.get(places, 0) + np.log(table)
    turned = {operator.le: operator.ge, operator.lt: operator.gt, operator.ge: operator.le, operator.gt: operator.lt}
    return _within(terms, math.log(bound / sign), function if sign > 0 else turned.get(function, function))


def _factors(node: Any) -> list[Any]:
    if getattr(node, "function", None) is operator.mul:
        return [one for side in node.arguments for one in _factors(side)]
    return [node]


def _within(terms: dict[tuple[int, ...], np.ndarray], bound: float, function: Callable[..., Any]) -> Total:
    size = abs(bound) + sum(float(np.abs(table).max()) for table in terms.values())
    whole = size < 2**53 and all((table == np.round(table)).all() for table in terms.values())
    least, most = LIMITS[function](bound, whole)
    slack = 0.0 if whole else 1e-9 * size
    least, most = least - slack, most + slack
    if most == math.inf:  # one direction for all that follows: small is good
        return Total({places: -table for places, table in terms.items()}, -most, -least, slack)
    return Total(terms, least, most, slack)


def _numbers(node: Any, places: tuple[int, ...], candidates: Candidates) -> np.ndarray | None:
    """Tabulate a term; ``None`` where it is too large, or not of numbers."""
    found = _table(node.evaluate, places, candidates)
    if found is None or not all(map(_is_number, found.flat)):
        return None
    return found.astype(float)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


# Tables


def _check(part: Any, candidates: Candidates) -> Check:
    holds = part.contains if isinstance(part, Constraint) else lambda sample: bool(part.evaluate(sample))
    places = _places(part, candidates)
    try:
        table = _table(holds, places, candidates)
    except LookupError:  # it asks for labels that it does not name
        places, table = tuple(range(len(candidates))), None
    return Check(places, None if table is None else table.astype(bool), holds)


def _places(node: Any, candidates: Candidates) -> tuple[int, ...]:
    """Return which labels it depends on; one that names none may depend on all."""
    if isinstance(node, Constraint):
        names = {label for label in node.simplify() if label in candidates}
        names = names or set(candidates)
    else:
        names = {one.label for one in node.leaf_symbols() if isinstance(one, Symbol)}
    return tuple(place for place, label in enumerate(candidates) if label in names)


def _table(value: Callable[[dict[str, Any]], Any], places: Sequence[int], candidates: Candidates) -> np.ndarray | None:
    labels = [list(candidates)[place] for place in places]
    sizes = [len(candidates[label]) for label in labels]
    if math.prod(sizes) > MOST_CELLS:
        return None
    found = np.empty(sizes, dtype=object)
    for numbers in itertools.product(*map(range, sizes)):
        pairs = zip(labels, numbers, strict=True)
        found[numbers] = value({label: candidates[label][number] for label, number in pairs})
    return found
