"""Keys, types and ranges of settings against a dataclass, told in words: where, both values, the way out."""

from __future__ import annotations

import functools
import math
import numbers
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError, did_you_mean

__all__ = ["Range", "as_mapping", "check_keys", "check_types", "inside", "ranges_of", "require"]


@dataclass(frozen=True)
class Range:
    """Which numbers a setting takes, all of them finite: ``hidden: Annotated[int, Range(least=1)]`` in a dataclass.

    Parameters
    ----------
    least, most
        The smallest and the largest.
    above
        What all are greater than.
    even
        Whether odd ones are left out.
    way_out
        A sentence for the error: what to do instead. Without one the error tells the setting's default.

    Examples
    --------
    >>> print(Range(least=1), Range(above=0), Range(least=0, most=1), Range(least=2, even=True), sep=", ")
    1 or more, more than 0, from 0 to 1, an even number of 2 or more
    >>> 0 in Range(least=1), 0.5 in Range(above=0), 15 in Range(even=True)
    (False, True, False)
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    even: bool = False
    way_out: str = ""

    def __contains__(self, value: float) -> bool:
        inside_ends = self.least <= value <= self.most and self.above < value < math.inf
        return inside_ends and not (self.even and value % 2)

    def __str__(self) -> str:
        if self.above > -math.inf:
            return f"more than {self.above}"
        if self.most < math.inf:
            return f"from {self.least} to {self.most}"
        if self.least > -math.inf:
            return f"an even number of {self.least} or more" if self.even else f"{self.least} or more"
        return "a finite number"


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r} ({type(value).__name__}), but must be a mapping.")
    return value


def require(document: Mapping[str, Any], key: str, where: str, why: str = "") -> Any:
    if key not in document:
        raise ConfigError(f"Missing key `{key}` in {where}{why}.")
    return document[key]


def check_keys(given: Mapping[str, Any], table: type, where: str) -> None:
    known = {one.name: one for one in fields(table)}
    for key in given:
        if key not in known:
            raise ConfigError(f"Unknown key `{key}` in {where}.{did_you_mean(key, known)}")
    for name, one in known.items():
        if one.default is MISSING and one.default_factory is MISSING and name not in given:
            raise ConfigError(f"Missing key `{name}` in {where}.")


def check_types(given: Mapping[str, Any], table: type, where: str) -> None:
    """Check the type of each setting, and its range where the dataclass names one.

    Raises
    ------
    ConfigError
        One has another type, or lies outside.
    """
    hints, ranges = get_type_hints(table), ranges_of(table)
    for key, value in given.items():
        if not _fits(value, hints[key]):
            raise ConfigError(
                f"`{key}` in {where} is {value!r} ({type(value).__name__}), but must be {_type_name(hints[key])}."
            )
        if key in ranges and value is not None and value not in ranges[key]:
            wanted = ranges[key] if -math.inf < value < math.inf else "a finite number"
            raise ConfigError(f"`{key}` in {where} is {value!r}, but must be {wanted}.{_way_out(key, table)}")


@functools.cache
def ranges_of(table: type) -> dict[str, Range]:
    """Return the range of each setting that has one.

    Parameters
    ----------
    table
        A dataclass of settings.
    """
    hints = get_type_hints(table, include_extras=True)
    found = {key: getattr(hint, "__metadata__", ()) for key, hint in hints.items()}
    return {key: one for key, extras in found.items() for one in extras if isinstance(one, Range)}


def _way_out(key: str, table: type) -> str:
    if ranges_of(table)[key].way_out:
        return f" {ranges_of(table)[key].way_out}"
    default = next(one.default for one in fields(table) if one.name == key)
    return "" if default is MISSING or default is None else f" Left out, it is {default!r}."


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if hint is Any:
        return True
    if origin is Literal:
        return value in get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    if hint in (int, float):  # also of NumPy
        return isinstance(value, numbers.Integral if hint is int else numbers.Real)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    return isinstance(value, origin or hint)


def _type_name(hint: Any) -> str:
    words = {dict: "a mapping", tuple: "a list", list: "a list", str: "a string", type(None): "null", bool: "a bool"}
    words |= {int: "an int", float: "a float", Any: "anything"}
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type_name(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return words.get(get_origin(hint) or hint, str(hint))


def inside(where: str, key: str) -> str:
    """Where a section inside a section is: ``section `a``` -> ``section `a.key```."""
    return f"{where[:-1]}.{key}`" if where.endswith("`") else f"{where}, section `{key}`"
