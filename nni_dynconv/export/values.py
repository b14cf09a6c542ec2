"""Values as JSON: numbers and names of torch, lists and dicts of them, and whatever else its reader knows."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from ..errors import ExportError

__all__ = ["Record", "decode", "encode", "identifier", "is_record", "items_of"]

TORCHS = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}
KNOWN: dict[str, dict[str, Any]] = {
    kind: {name: one for name, one in vars(torch).items() if isinstance(one, cls)} for kind, cls in TORCHS.items()
}
"""Of each kind, the values that there are, by name."""


class Record(dict[str, Any]):
    """An output with named parts, of a class that is not read back: also by attribute and, as a tuple, by place.

    Examples
    --------
    >>> output = Record(hidden=1, pooled=2)
    >>> output.hidden, output["pooled"], output[0]
    (1, 2, 1)
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the parts alone."""
        return tuple(self.values())


def is_record(value: Any) -> bool:
    """Whether a value has named parts, and is no plain dict."""
    return type(value) is not dict and (isinstance(value, Mapping) or (is_dataclass(value) and not callable(value)))


def items_of(value: Any) -> dict[str, Any]:
    """Return the named parts of a record."""
    if isinstance(value, Mapping):
        return dict(value)
    return {one.name: getattr(value, one.name) for one in fields(value)}


def identifier(name: Any) -> str:
    """Return a name that may stand in a file.

    Raises
    ------
    ExportError
        It is none.
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ExportError(f"{name!r} is no name.")
    return name


def encode(value: Any, known: Callable[[Any], Any] = lambda value: None) -> Any:
    """Write a value as JSON.

    Parameters
    ----------
    known
        Writes what the caller knows, as a dict of one entry; ``None`` for all else.

    Raises
    ------
    ExportError
        It is of a kind that cannot be written.

    Examples
    --------
    >>> encode((3, 3)), encode(torch.float32)
    ({'tuple': [3, 3]}, {'dtype': 'float32'})
    """
    own = known(value)
    if own is not None:
        return own
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (tuple, list)):
        return _encode_sequence(value, known)
    if type(value) is dict:
        return {"dict": [[encode(key), encode(one, known)] for key, one in value.items()]}
    if isinstance(value, slice):
        return {"slice": [encode(one, known) for one in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    for kind, cls in TORCHS.items():
        if isinstance(value, cls):
            return {kind: str(value).removeprefix("torch.")}
    if is_record(value):
        return {"record": [[identifier(key), encode(one, known)] for key, one in items_of(value).items()]}
    raise ExportError(f"{_shown(value)} ({type(value).__name__}) cannot be written as data.")


def _encode_sequence(value: Any, known: Callable[[Any], Any]) -> dict[str, Any]:
    parts = [encode(one, known) for one in value]
    if hasattr(value, "_fields"):
        return {"named": [type(value).__name__, list(value._fields), parts]}
    return {"tuple" if isinstance(value, tuple) else "list": parts}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]} ..."


def decode(data: Any, known: Mapping[str, Callable[[Any], Any]] | None = None) -> Any:
    """Read what :func:`encode` wrote.

    Parameters
    ----------
    known
        Readers of what the caller knows, by kind.

    Raises
    ------
    ExportError
        There is no such kind, or no such value of it.
    """
    if isinstance(data, list):
        raise ExportError(f"{_shown(data)} is no value: a list is written as `{{'list': [...]}}`.")
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ExportError(f"{_shown(data)} is no value: it has {len(data)} kinds.")
    ((kind, value),) = data.items()
    if known is not None and kind in known:
        return known[kind](value)
    if kind in KNOWN:
        if value not in KNOWN[kind]:
            raise ExportError(f"torch has no {kind} `{value}`.")
        return KNOWN[kind][value]
    if kind not in _READERS:
        raise ExportError(f"Unknown kind of value `{kind}`.")
    return _READERS[kind](value, lambda one: decode(one, known))


def _float(text: Any, read: Any) -> float:
    return float(text)


def _named(value: Any, read: Any) -> Any:
    name, names, parts = value
    made = namedtuple(identifier(name), [identifier(one) for one in names])  # type: ignore[misc]
    return made(*map(read, parts))


def _dict(value: Any, read: Any) -> dict[Any, Any]:
    pairs = value.items() if isinstance(value, dict) else value  # until format 3 keys were strings
    return {(read(key) if isinstance(key, dict) else key): read(one) for key, one in pairs}


_READERS: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "float": _float,
    "tuple": lambda value, read: tuple(map(read, value)),
    "list": lambda value, read: list(map(read, value)),
    "slice": lambda value, read: slice(*map(read, value)),
    "ellipsis": lambda value, read: Ellipsis,
    "named": _named,
    "dict": _dict,
    "record": lambda value, read: Record({identifier(key): read(one) for key, one in value}),
}
