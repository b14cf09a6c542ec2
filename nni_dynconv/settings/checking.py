"""What is given against a table of settings: pydantic checks, and its errors are told in this project's words."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, ErrorDetails

from ..errors import ConfigError, did_you_mean

__all__ = ["as_mapping", "check", "check_some", "inside", "range_of", "require", "settings_of"]

Table = TypeVar("Table")
TYPES = {
    "int_type": "an int",
    "float_type": "a float",
    "string_type": "a string",
    "bool_type": "a bool",
    "dict_type": "a mapping",
    "list_type": "a list",
}
FIRST = ("unexpected_keyword_argument", "missing")
"""Which of pydantic's errors are told before the others, in this order."""


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r} ({type(value).__name__}), but must be a mapping.")
    return value


def require(document: Mapping[str, Any], key: str, where: str, why: str = "") -> Any:
    if key not in document:
        raise ConfigError(f"Missing key `{key}` in {where}{why}.")
    return document[key]


def inside(where: str, key: str) -> str:
    """Where a section inside a section is: ``section `a``` -> ``section `a.key```."""
    return f"{where[:-1]}.{key}`" if where.endswith("`") else f"{where}, section `{key}`"


def check(table: type[Table], given: Mapping[str, Any], where: str) -> Table:
    """Return the settings of a table, with every default filled in.

    Parameters
    ----------
    table
        A dataclass of settings.
    where
        Place of what is given, for the error's words.

    Raises
    ------
    ConfigError
        A key is unknown or missing, or a value has another type or lies outside of its range.
    """
    try:
        return _validated(table, given)
    except ValidationError as error:
        raise ConfigError(_told(error.errors(include_url=False), table, where)) from None


def check_some(table: type, given: Mapping[str, Any], where: str) -> None:
    """Check some settings of a table, as :func:`check` does; others may be missing."""
    try:
        _validated(table, given)
    except ValidationError as error:
        wrong = [one for one in error.errors(include_url=False) if one["type"] != "missing"]
        if wrong:
            raise ConfigError(_told(wrong, table, where)) from None


def _validated(table: type, given: Mapping[str, Any]) -> Any:
    """Validate as a call of the constructor is: a strict dataclass takes no mapping otherwise."""
    plain = {str(key): _plain(value) for key, value in given.items()}
    return _adapter(table).validator.validate_python(ArgsKwargs((), plain), self_instance=object.__new__(table))


_adapter = functools.cache(TypeAdapter)  # of a table; made when it is used, so that importing stays fast


def _plain(value: Any) -> Any:
    """Numbers of NumPy are numbers."""
    if isinstance(value, (bool, int, float)) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _told(errors: list[ErrorDetails], table: type, where: str) -> str:
    """Return the first error in words: where, both values, the way out."""
    error = min(errors, key=lambda one: FIRST.index(one["type"]) if one["type"] in FIRST else len(FIRST))
    *sections, key = [str(part) for part in error["loc"] if part != "[key]"]
    where, value, known = functools.reduce(inside, sections, where), error["input"], settings_of(table)
    setting = _limits(error) if sections else known.get(key, {})
    if error["type"] == "unexpected_keyword_argument":
        return f"Unknown key `{key}` in {where}.{did_you_mean(key, known)}"
    if error["type"] == "missing":
        return f"Missing key `{key}` in {where}."
    if error["type"] == "literal_error" and "x-name" in setting and isinstance(value, str):
        return f"Unknown `{key}` `{value}` in {where}.{did_you_mean(value, setting['enum'])}"
    if error["type"] in (*TYPES, "literal_error"):
        return f"`{key}` in {where} is {value!r} ({type(value).__name__}), but must be {_type(error, setting)}"
    wanted = "a finite number" if error["type"] == "finite_number" else range_of(setting)
    return f"`{key}` in {where} is {value!r}, but must be {wanted}.{_way_out(setting)}"


def _limits(error: ErrorDetails) -> dict[str, Any]:
    """Return the range of a value inside a setting, in the words of a JSON Schema."""
    words = {"ge": "minimum", "gt": "exclusiveMinimum"}
    return {words[name]: f"{end:g}" for name, end in error.get("ctx", {}).items() if name in words}


def _type(error: ErrorDetails, setting: Mapping[str, Any]) -> str:
    if error["type"] != "literal_error":
        return TYPES[error["type"]] + (" or null." if "anyOf" in setting else ".")
    if "x-name" in setting:
        return "a string."
    hint = did_you_mean(error["input"], setting["enum"])
    return f"one of {', '.join(map(repr, setting['enum']))}.{hint if hint.startswith(' Did') else ''}"


def _way_out(setting: Mapping[str, Any]) -> str:
    if "x-way-out" in setting:
        return f" {setting['x-way-out']}"
    default = setting.get("default")
    return "" if default is None else f" Left out, it is {default!r}."


@functools.cache
def settings_of(table: type) -> dict[str, dict[str, Any]]:
    """Return what the JSON Schema of a table says of each setting; ``anyOf`` stands where one may be ``null``."""
    properties = _adapter(table).json_schema()["properties"]
    return {key: {**one.get("anyOf", [{}])[0], **one} for key, one in properties.items()}


def range_of(setting: Mapping[str, Any]) -> str:
    """Return which numbers a setting takes, in words.

    >>> ", ".join(map(range_of, ({"minimum": 1}, {"exclusiveMinimum": 0}, {"minimum": 0, "maximum": 1})))
    '1 or more, more than 0, from 0 to 1'
    >>> range_of({"minimum": 2, "multipleOf": 2}), range_of({"type": "number"}), range_of({"type": "string"})
    ('an even number of 2 or more', 'a finite number', '')
    """
    if "exclusiveMinimum" in setting:
        return f"more than {setting['exclusiveMinimum']}"
    if "maximum" in setting:
        return f"from {setting['minimum']} to {setting['maximum']}"
    if "minimum" in setting:
        return f"{'an even number of ' if 'multipleOf' in setting else ''}{setting['minimum']} or more"
    return "a finite number" if setting.get("type") == "number" else ""
