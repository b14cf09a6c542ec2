"""``searchSpace`` of an experiment: hyper-parameters, by the dotted names of a run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, did_you_mean
from .checking import as_mapping, check_some, inside, settings_of
from .named import TABLES
from .parts import ArchitectureSettings, StrategySettings
from .run import FREE_SECTIONS, RunSettings

__all__ = ["check_search_space", "hyper_parameters", "with_hyper_parameters"]


def check_search_space(search_space: Any, settings: RunSettings, where: str) -> None:
    """Check that a ``searchSpace`` holds hyper-parameters that this run has: dotted names of its settings."""
    place = f"{where}, section `searchSpace`"
    space = as_mapping(search_space if search_space is not None else {}, place)
    if settings.mode == "multi_trial" and space:
        raise ConfigError(
            f"`searchSpace` in {where} must be `{{}}` in `mode: multi_trial`, but has `{next(iter(space))}`: there the "
            f"sampler chooses among the architectures of `{settings.space}`."
        )
    known = hyper_parameters(settings)
    for key, value in space.items():
        free = _is_free(str(key), settings)
        if not free and key not in known:
            hint = f"{did_you_mean(key, known)} Or any `{'.x`, `'.join(FREE_SECTIONS)}.x`."
            raise ConfigError(f"Unknown setting `{key}` in {place}.{hint}")
        for candidate in _candidates(key, value, place):
            if not free:
                check_some(known[key], {key.rpartition(".")[2]: candidate}, inside(place, key))


def _is_free(key: str, settings: RunSettings) -> bool:
    """Whether a dotted name is an argument of the user's own classes and functions."""
    head, _, tail = key.partition(".")
    part = getattr(settings, head) if head in TABLES else None
    return bool(tail) and (head in FREE_SECTIONS or (part is not None and part.name not in TABLES[head]))


def _candidates(key: str, value: Any, place: str) -> list[Any]:
    """Return the values that a trial may be given, where they are listed."""
    from nni.common.hpo_utils.validation import common_search_space_types

    if not isinstance(value, Mapping) or not {"_type", "_value"} <= set(value):
        raise ConfigError(f"`{key}` in {place} is {value!r}, but must be a mapping with `_type` and `_value`.")
    if value["_type"] not in common_search_space_types:
        hint = did_you_mean(value["_type"], common_search_space_types)
        raise ConfigError(f"Unknown `_type` `{value['_type']}` in {inside(place, key)}.{hint}")
    return value["_value"] if value["_type"] == "choice" and isinstance(value["_value"], list) else []


def hyper_parameters(settings: RunSettings) -> dict[str, type]:
    """Return the dotted names that a ``searchSpace`` may hold, and the table of each; the user's own are left out."""
    tables: dict[str, type] = {} if settings.architecture is None else {"architecture": ArchitectureSettings}
    for kind, names in TABLES.items():
        part = getattr(settings, kind)
        if part is not None and part.name in names:
            tables[kind] = names[part.name].settings
    tables["strategy"] = StrategySettings
    dotted = {f"{head}.{key}": table for head, table in tables.items() for key in settings_of(table)}
    return {**dict.fromkeys(("seed", "base", "delta", "rank"), RunSettings), **dotted}


def with_hyper_parameters(settings: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the settings (long form) with dotted hyper-parameters put in their places.

    >>> with_hyper_parameters({"sampler": {"name": "gdas"}, "seed": 0}, {"sampler.learning_rate": 0.1, "seed": 3})
    {'sampler': {'name': 'gdas', 'learning_rate': 0.1}, 'seed': 3}
    """
    merged = _copy(settings)
    for key, value in values.items():
        *path, last = key.split(".")
        section = merged
        for name in path:
            section = section.setdefault(name, {})
        section[last] = value
    return merged


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value
