"""A YAML file, read in bounded time, as what JSON can tell too: NNI passes all of it on as JSON, through JavaScript."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

__all__ = ["load_yaml"]

MOST_BYTES, DEEPEST, MOST_VALUES = 2**18, 50, 20_000
LARGEST = 2**53 - 1
"""Of the whole numbers that JavaScript tells apart, in which NNI's manager is written."""


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; what is wrong with it is told in words.

    Raises
    ------
    ConfigError
        It cannot be read, is no YAML, is too large, or holds what NNI cannot pass on to a trial as it is.
    """
    text = _text(path)
    try:
        _check_size(text, path)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _check_keys(node, path)
        document = yaml.safe_load(text)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    except (ValueError, TypeError, OverflowError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not YAML that can be read: {type(error).__name__}: {error}. A date or a number that is meant "
            f"as text stands in quotes."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is {document!r:.80} ({type(document).__name__}), but must be a mapping.")
    for place, problem in _problems(document, ""):
        raise ConfigError(f"`{place}` in {path} {problem}")
    return document


def _text(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        raise ConfigError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{path} has more than {MOST_BYTES // 1024} KiB, which no experiment's YAML needs.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not in UTF-8: {error.reason} in line {line}. Save it as UTF-8.") from None


def _check_size(text: str, path: str | Path) -> None:
    """Check how deep and how large it is, with what is repeated by name (``*anchor``) counted as often as it stands."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        name = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if name not in sizes and any(name == one for one, _ in opened):
                raise ConfigError(f"{path} has `*{name}` inside of `&{name}`, which is without end.")
            total += sizes.get(str(name), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((name, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            begun, before = opened.pop()
            sizes |= {begun: total - before} if begun is not None else {}
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value) // 64
            total += size
            sizes |= {name: size} if name is not None else {}
        if len(opened) > DEEPEST:
            raise ConfigError(f"{path} is more than {DEEPEST} levels deep.")
        if total > MOST_VALUES:
            raise ConfigError(f"{path} holds more than {MOST_VALUES} values, those repeated by `*` counted.")


def _check_keys(node: yaml.Node, path: str | Path) -> None:
    """Check that no key stands twice in a mapping, of which YAML would silently take the last."""
    todo, known = [node], set()
    while todo:
        one = todo.pop()
        if id(one) in known or not isinstance(one, yaml.CollectionNode):
            continue
        known.add(id(one))
        if isinstance(one, yaml.SequenceNode):
            todo += one.value
            continue
        seen: dict[str, Any] = {}
        for key, value in one.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    lines = f"lines {seen[key.value] + 1} and {key.start_mark.line + 1}"
                    raise ConfigError(f"`{key.value}` stands twice in one mapping of {path}, {lines}. Take one out.")
                seen[key.value] = key.start_mark.line
            todo += [key, value]


def _problems(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield where something stands that JSON cannot tell, or not as it is, and what to write."""
    if isinstance(value, dict):
        for key, one in value.items():
            inside = f"{place}.{key}".lstrip(".")
            if not isinstance(key, str):
                yield inside, f"is named {key!r} ({type(key).__name__}): names are strings. Put it in quotes."
            yield from _problems(key, inside)
            yield from _problems(one, inside)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _problems(one, f"{place}[{number}]")
    elif isinstance(value, str):
        if not _is_text(value):
            yield place, "holds half of a surrogate pair, which is no text."
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield place, f"is {value}, but must be a finite number: NNI passes settings on as JSON, which has no other."
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            yield place, f"is too large a number: NNI's manager tells whole numbers apart up to {LARGEST}."
    elif value is not None:
        yield place, f"is {value!r:.80} ({type(value).__name__}), which NNI cannot pass on. Put it in quotes."


def _is_text(value: str) -> bool:
    try:
        return bool(value.encode() or True)
    except UnicodeEncodeError:
        return False
