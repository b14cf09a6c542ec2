"""What a site's weights are made of, as data: which base, which kind of delta, for which sites; no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from ..errors import ConfigError, did_you_mean
from .checking import as_mapping, check, inside
from .fields import NAME, Count, Positive, Settings, about

__all__ = ["BASES", "DELTAS", "MAKING_BUDGET", "Recipe", "check_budget", "check_recipe", "check_settings", "recipes_of"]

BaseName = Literal["none", "learned", "given"]
DeltaName = Literal["none", "scale", "low_rank", "full", "auto"]
BASES, DELTAS = get_args(BaseName), get_args(DeltaName)
CHANGES_A_BASE = ("none", "scale")

null_is_none = BeforeValidator(lambda value: "none" if value is None else value)
"""YAML 1.1 reads a bare ``null``, which people write for ``none``."""
Base = Annotated[
    BaseName,
    null_is_none,
    about("`none`, `learned`, or `given` where `space` gives a lifted one", json_schema_extra=NAME),
]
Delta = Annotated[
    DeltaName,
    null_is_none,
    about(
        "`none`, `scale`, `low_rank`, `full`, or `auto`: the richest that `making_budget` allows",
        json_schema_extra=NAME,
    ),
]
Rank = Annotated[Count, about("of `low_rank`")]
Budget = Annotated[
    Positive,
    about("of `auto`: the most that making and using weights adds to a training step, in steps with ordinary weights"),
]
MAKING_BUDGET = 0.5
"""Half as much again as the network by itself."""


@dataclass(frozen=True)
class Recipe(Settings):
    """How the weights of a site come about: ``base + scale * factor * delta``.

    Parameters
    ----------
    base
        ``none``; ``learned``, which starts as large as weights without a base; ``given``, which starts as the weights
        that a module had before it was lifted.
    delta
        ``none``: the weights are the base, and static. ``scale``: a factor for each output channel of the base, as in
        FiLM. ``low_rank``: a product of two thin matrices, as in LoRA. ``full``: every value, as a hypernetwork.
        ``auto``: left open; a mutator picks one of these, and base and rank with it, by what it would cost.
    rank
        Of ``low_rank``.

    References
    ----------
    Perez et al., FiLM, AAAI 2018; Hu et al., LoRA, ICLR 2022; Ha et al., HyperNetworks, ICLR 2017.

    Examples
    --------
    >>> Recipe(base="learned", delta="scale").has_factor, Recipe().has_factor
    (True, False)
    """

    base: Base = "none"
    delta: Delta = "full"
    rank: Rank = 8

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self  # it never changes, and a large space has thousands

    @property
    def has_base(self) -> bool:
        """Whether a base is stored."""
        return self.base != "none"

    @property
    def has_factor(self) -> bool:
        """Whether a learned factor says how much of the delta is added to the base."""
        return self.has_base and self.delta != "none"


def check_recipe(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check settings of a recipe, all or some.

    Parameters
    ----------
    where
        Place of the settings, for the error's words.

    Returns
    -------
    The settings that were given.

    Raises
    ------
    ConfigError
        A key, a name or a number is wrong.
    """
    recipe = check(Recipe, given, where)
    return {key: getattr(recipe, key) for key in given}


@dataclass(frozen=True)
class _Budgeted(Settings):
    making_budget: Budget


def check_budget(making_budget: float, where: str) -> None:
    """Refuse a budget that is no number above 0.

    Raises
    ------
    ConfigError
        It is none.
    """
    check(_Budgeted, {"making_budget": making_budget}, where)


def _recipe_from(given: Mapping[str, Any], default: Recipe, where: str) -> Recipe:
    """Return a recipe: the given settings, and those of another for the rest.

    Raises
    ------
    ConfigError
        A setting is wrong, or a delta that changes a base has none.
    """
    recipe = replace(default, **check_recipe(given, where))
    if recipe.delta in CHANGES_A_BASE and not recipe.has_base:
        raise ConfigError(
            f"In {where} the delta `{recipe.delta}` has no base to change: `base` is `none`. Take `base` `learned`, or "
            f"`given` for a lifted network, or the delta `low_rank` or `full`."
        )
    return recipe


def check_settings(settings: Mapping[str, Any], where: str) -> tuple[Recipe, dict[str, dict[str, Any]]]:
    """Return the recipe of all sites, and settings by pattern of site names.

    Parameters
    ----------
    settings
        Some of ``base``, ``delta``, ``rank`` and ``per_site``.
    where
        Place of the settings, for the error's words.

    Raises
    ------
    ConfigError
        One is wrong, or they do not go together.
    """
    default = _recipe_from({key: value for key, value in settings.items() if key != "per_site"}, Recipe(), where)
    return default, _check_per_site(settings.get("per_site") or {}, default, where)


def _check_per_site(per_site: Any, default: Recipe, where: str) -> dict[str, dict[str, Any]]:
    """Return the settings of each pattern of site names.

    Raises
    ------
    ConfigError
        One is no mapping, or no recipe together with the default.
    """
    place = inside(where, "per_site")
    settings = {}
    for pattern, given in as_mapping(per_site, place).items():
        own = inside(place, str(pattern))
        settings[str(pattern)] = check_recipe(as_mapping(given, own), own)
        _recipe_from(settings[str(pattern)], default, own)
    return settings


def recipes_of(
    sites: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Recipe], per_site: Mapping[str, Mapping[str, Any]]
) -> dict[str, Recipe]:
    """Return the recipe of each site: what its op says, then the first pattern that matches, then the default.

    Parameters
    ----------
    sites
        What the op of each site says of its own.
    defaults
        Recipe of each site where neither says anything.
    per_site
        Settings by glob pattern of site names.

    Raises
    ------
    ConfigError
        A pattern decides for no site, or a delta has no base to change.

    Examples
    --------
    >>> sites = {"stem": {}, "body/a": {"rank": 2}}
    >>> found = recipes_of(sites, dict.fromkeys(sites, Recipe("learned")), {"body/*": {"delta": "low_rank"}})
    >>> found["stem"].delta, found["body/a"]
    ('full', Recipe(base='learned', delta='low_rank', rank=2))
    """
    matching = {name: [pattern for pattern in per_site if _matches(name, pattern)] for name in sites}
    for pattern in per_site:
        _check_decides(pattern, matching)
    recipes = {}
    for name, own in sites.items():
        settings = per_site[matching[name][0]] if matching[name] else {}
        recipes[name] = _recipe_from({**settings, **own}, defaults[name], f"site `{name}`")
    return recipes


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)  # a name may have brackets


def _check_decides(pattern: str, matching: Mapping[str, Sequence[str]]) -> None:
    """Refuse a pattern that is the first of no site.

    Raises
    ------
    ConfigError
        It matches none, or only such as an earlier one matches.
    """
    matched = [patterns for patterns in matching.values() if pattern in patterns]
    if not matched:
        raise ConfigError(
            f"`per_site` has `{pattern}`, which matches none of the {len(matching)} sites."
            f"{did_you_mean(pattern, matching)}"
        )
    if all(patterns[0] != pattern for patterns in matched):
        earlier = ", ".join(f"`{one}`" for one in dict.fromkeys(patterns[0] for patterns in matched))
        raise ConfigError(
            f"`per_site` has `{pattern}` after {earlier}, where all its sites are matched already, and the first that "
            f"matches counts. Put it first."
        )
