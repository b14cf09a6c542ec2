"""Keys and types of a YAML section against a dataclass, told in words: where, both values, the nearest known key."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, did_you_mean

__all__ = ["as_mapping", "check_keys", "check_types", "inside", "require"]


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
    hints = get_type_hints(table)
    for key, value in given.items():
        if not _fits(value, hints[key]):
            raise ConfigError(
                f"`{key}` in {where} is {value!r} ({type(value).__name__}), but must be {_type_name(hints[key])}."
            )


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
    if hint is float:
        return isinstance(value, (int, float))
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
