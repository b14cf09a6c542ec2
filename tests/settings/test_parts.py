"""The tables of the parts are the arguments of their classes, and the YAML and the classes refuse the same numbers."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import get_type_hints

import numpy as np
import pytest

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import (
    TABLES,
    ArchitectureSettings,
    BaselineSettings,
    Recipe,
    RunSettings,
    StrategySettings,
    check_class_args,
    load_object,
)
from nni_dynconv.settings.checking import check, check_some, range_of, settings_of

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table], ids=lambda value: value
)
def test_settings_are_the_keyword_arguments_of_their_class(kind, name):
    part = TABLES[kind][name]
    _same_arguments(part.settings, load_object(part.dotted).__init__)


def test_strategy_settings_are_the_keyword_arguments_of_the_strategy():
    _same_arguments(StrategySettings, load_object("nni_dynconv.search.strategy:DynamicStrategy").__init__)


OF_A_RUN = ("folder", "baselines", "metric", "optimize_mode", "reports", "diagnosis", "costs", "allotted")
"""Arguments of a strategy that a YAML has beside its section, or that are handed in from above."""


def _same_arguments(settings, function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if name not in ("self", "mutator", *OF_A_RUN) and one.kind not in kinds
    }
    ours = {one.name: inspect.Parameter.empty if one.default is MISSING else one.default for one in fields(settings)}
    assert ours == parameters


PLACES = {
    f"{kind}: {name}": (part.settings, part.dotted) for kind, names in TABLES.items() for name, part in names.items()
}

PLACES |= {
    "strategy": (StrategySettings, "nni_dynconv.search.strategy:DynamicStrategy"),
    "architecture": (ArchitectureSettings, "nni_dynconv.generation.architecture:ArchitectureEncoder"),
    "baselines": (BaselineSettings, None),
    "recipe": (Recipe, "nni_dynconv.ops:DynamicLinear"),
    "run": (RunSettings, None),
}


def class_args(place, settings):
    """The settings where a YAML has them."""
    kind, _, name = place.partition(": ")
    if kind in ("recipe", "run"):
        return {**ONE_SHOT, **settings}
    return {**ONE_SHOT, kind: {"name": name, **settings} if name else settings}


def required(table):
    """A value for each setting without a default; those of a run stand in `ONE_SHOT`."""
    return {one.name: 2 for one in fields(table) if one.default is MISSING and table is not RunSettings}


def made(place, dotted, settings):
    """The same settings, given to the class."""
    positional = {"strategy": (None,), "recipe": (1, 1)}.get(place, ())
    return load_object(dotted)(*positional, **settings)


def ranges_of(table):
    """What the settings that take numbers of a range say of it."""
    return {name: one for name, one in settings_of(table).items() if range_of(one)}


def outside(table, name):
    """Numbers that a setting does not take."""
    one = ranges_of(table)[name]
    least, most, above = (one.get(end, math.inf) for end in ("minimum", "maximum", "exclusiveMinimum"))
    values = [least - 1, most + 1, above, least + 1 if "multipleOf" in one else math.inf]
    found = [value for value in values if math.isfinite(value)]
    return found if get_type_hints(table)[name] in (int, int | None) else [*found, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (place, name, value)
        for place, (table, _) in PLACES.items()
        for name in ranges_of(table)
        for value in outside(table, name)
    ],
)
def test_a_number_outside_of_its_range_is_refused_by_yaml_and_class_in_the_same_words(place, name, value):
    """Most used to be accepted, and ended in a division by zero, in shapes that do not fit, or in no numbers."""
    table, dotted = PLACES[place]
    settings = {**required(table), name: value}
    with pytest.raises(
        ConfigError, match=rf"^`{name}` in section `tuner.classArgs\S* is {value!r}, but must be "
    ) as told:
        check_class_args(class_args(place, settings))
    if dotted is not None:
        with pytest.raises(ConfigError, match=f"^`{name}` in `{dotted.partition(':')[2]}` is ") as told_by_class:
            made(place, dotted, settings)
        same = [re.sub(r" in (section )?`\S+` is ", " is ", str(one.value)) for one in (told, told_by_class)]
        assert same[0] == same[1]


@pytest.mark.parametrize("place", PLACES)
def test_every_number_among_the_settings_has_a_range(place):
    table, _ = PLACES[place]
    kinds = (int, float, float | None, int | None)
    numbers = {name for name, hint in get_type_hints(table).items() if hint in kinds}
    numbers -= {name for name in ("seed",) if get_type_hints(table).get(name) == int | None}  # any will do
    assert numbers == set(ranges_of(table))


@pytest.mark.parametrize("place", [place for place, (_, dotted) in PLACES.items() if dotted])
def test_the_ends_of_a_range_and_null_are_accepted(place):
    table, _ = PLACES[place]
    for name, one in ranges_of(table).items():
        ends = [one[end] for end in ("minimum", "maximum") if end in one]
        for value in [*ends, one["exclusiveMinimum"] + 1e-3] if "exclusiveMinimum" in one else ends:
            check_class_args(class_args(place, {**required(table), name: value}))
    optional = [name for name, hint in get_type_hints(table).items() if hint in (float | None, int | None)]
    check_class_args(class_args(place, {**required(table), **dict.fromkeys(optional)}))


def test_the_error_tells_another_setting_where_that_is_the_way_out():
    words = "`rerank_steps` in .* is 0, but must be 1 or more. To train none in the end, set `rerank` to 0."
    with pytest.raises(ConfigError, match=words):
        check_class_args({**ONE_SHOT, "strategy": {"rerank_steps": 0}})


def test_numbers_of_numpy_are_numbers():
    chunked = load_object("nni_dynconv.generation.controllers:ChunkedController")
    assert chunked(hidden=np.int64(8)).hidden == 8
    gdas = load_object("nni_dynconv.samplers:GdasSampler")
    assert gdas(tau_end=np.float32(0.5)).tau_end == 0.5
    with pytest.raises(ConfigError, match="`hidden` in `ChunkedController` is .*, but must be 1 or more"):
        chunked(hidden=np.int64(0))


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_converted(place):
    """pydantic would make an int of "1", of 1.0 and of `true`."""
    table, _ = PLACES[place]
    wrong = {int: ("1", 1.0, True), float: ("1", True), bool: (1, "yes"), str: (1, b"x")}
    for name, hint in get_type_hints(table).items():
        for value in wrong.get(hint, ()):
            with pytest.raises(ConfigError, match=f"^`{name}` in x is .* but must be an? "):
                check_some(table, {name: value}, "x")


@pytest.mark.parametrize("place", PLACES)
def test_settings_are_frozen_compared_and_pickled(place):
    table, _ = PLACES[place]
    needed = ONE_SHOT if table is RunSettings else required(table)
    settings = check(table, needed, "x")
    assert settings == table(**needed) == pickle.loads(pickle.dumps(settings))  # noqa: S301 (our own)
    with pytest.raises(FrozenInstanceError):
        settings.seed = 1
