"""The JSON Schema of an experiment's YAML takes what is right, and refuses what is wrong; a file of it ships."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import TABLES, check_class_args, experiment_schema
from nni_dynconv.settings.checking import settings_of
from nni_dynconv.settings.schema import SCHEMA_FILE

ROOT = Path(__file__).parents[2]
SCHEMA = experiment_schema()
YAMLS = sorted([*ROOT.glob("configs/*.yml"), *ROOT.glob("tests/fixtures/**/*.yml")])
RIGHT = {
    "searchSpace": {},
    "trialConcurrency": 1,
    "trainingService": {"platform": "local"},
    "tuner": {
        "name": "DynamicWeightMutator",
        "classArgs": {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"},
    },
}
MULTI_TRIAL = {"mode": "multi_trial", "sampler": "random", "checkpoint": "shared"}

# What the keywords mean that our schema has; another one is a KeyError

ANNOTATIONS = {"$schema", "$defs", "default", "description", "format", "then", "else"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}


def is_of(value, kind):
    if isinstance(value, bool) or kind != "number":
        return isinstance(value, TYPES.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))
    return isinstance(value, (int, float))


def number(compare):
    return lambda value, rule, _: not is_of(value, "number") or compare(value, rule)


def others(value, schema):
    """The keys of a mapping that no other keyword speaks of."""
    patterns = schema.get("patternProperties", {})
    known = [key for key in value if any(re.search(pattern, key) for pattern in patterns)]
    return [one for key, one in value.items() if key not in schema.get("properties", {}) and key not in known]


KEYWORDS = {
    "$ref": lambda value, rule, _: fits(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")]),
    "type": lambda value, rule, _: any(is_of(value, kind) for kind in ([rule] if isinstance(rule, str) else rule)),
    "enum": lambda value, rule, _: any(value == one and type(value) is type(one) for one in rule),
    "const": lambda value, rule, _: value == rule,
    "pattern": lambda value, rule, _: not isinstance(value, str) or bool(re.search(rule, value)),
    "minimum": number(lambda value, rule: value >= rule),
    "maximum": number(lambda value, rule: value <= rule),
    "exclusiveMinimum": number(lambda value, rule: value > rule),
    "multipleOf": number(lambda value, rule: value % rule == 0),
    "items": lambda value, rule, _: not isinstance(value, list) or all(fits(one, rule) for one in value),
    "required": lambda value, rule, _: not isinstance(value, dict) or set(rule) <= set(value),
    "properties": lambda value, rule, _: (
        not isinstance(value, dict) or all(fits(value[key], one) for key, one in rule.items() if key in value)
    ),
    "patternProperties": lambda value, rule, _: (
        not isinstance(value, dict)
        or all(fits(value[key], one) for pattern, one in rule.items() for key in value if re.search(pattern, key))
    ),
    "additionalProperties": lambda value, rule, schema: (
        not isinstance(value, dict) or all(fits(one, rule) for one in others(value, schema))
    ),
    "anyOf": lambda value, rule, _: any(fits(value, one) for one in rule),
    "allOf": lambda value, rule, _: all(fits(value, one) for one in rule),
    "not": lambda value, rule, _: not fits(value, rule),
    "if": lambda value, rule, schema: fits(value, schema["then" if fits(value, rule) else "else"]),
}


def fits(value, schema=SCHEMA):
    if isinstance(schema, bool):
        return schema
    return all(KEYWORDS[key](value, rule, schema) for key, rule in schema.items() if key not in ANNOTATIONS)


def experiment(class_args=None, **changes):
    document = {**copy.deepcopy(RIGHT), **changes}
    if class_args is not None:
        document["tuner"]["classArgs"] |= class_args
    return {key: value for key, value in document.items() if value is not None}


def test_what_ships_is_what_is_made_of_the_tables():
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == SCHEMA


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_yaml_of_the_project_is_right(path):
    assert fits(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yml")), ids=lambda path: path.name)
def test_editors_find_the_schema_by_the_first_line_of_a_yaml(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    place = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first).group(1)
    assert (path.parent / place).resolve() == SCHEMA_FILE


CHOICE = {"_type": "choice", "_value": [1, 2]}
MACHINE = {"host": "a", "user": "b", "gpuIndices": [0]}


@pytest.mark.parametrize(
    "class_args",
    [
        {},
        {"sampler": None, "base": "learned", "delta": None, "per_site": {"a": {"delta": None, "rank": 2}}},
        {"sampler": "mine:Sampler", "controller": {"name": "mine:Controller", "anything": 1}},
        {"context": {"name": "vector", "in_features": 3, "dim": 4}, "strategy": {"smoothness": 1}},
        {"hyper_tuner": {"name": "TPE", "classArgs": {"seed": 1}}, "report": "toy:report"},
        MULTI_TRIAL,
        {**MULTI_TRIAL, "sampler": {"name": "enas", "hidden": 8}, "strategy": {"log_every": 5}},
    ],
    ids=str,
)
def test_right_class_args_are_taken(class_args):
    assert fits(experiment(class_args))


@pytest.mark.parametrize(
    "changes",
    [
        {"searchSpace": {"seed": CHOICE, "sampler.learning_rate": CHOICE, "space_args.x": CHOICE}},
        {"searchSpace": None, "searchSpaceFile": "space.json"},
        {"trainingService": {"platform": "remote", "machineList": [MACHINE]}},
        {"trainingService": [{"platform": "local"}, {"platform": "local", "useActiveGpu": True}]},
        {"assessor": {"name": "Medianstop", "classArgs": {"start_step": 2}}, "maxExperimentDuration": "1h"},
    ],
    ids=str,
)
def test_a_right_experiment_is_taken(changes):
    assert fits(experiment(**changes))


@pytest.mark.parametrize(
    "class_args",
    [
        {"controler": "chunked"},
        {"mode": "oneshot"},
        {"space": "toy.Space"},
        {"seed": True},
        {"seed": -1},
        {"rank": 4.5},
        {"delta": "ful"},
        {"per_site": {"a": {"rnk": 2}}},
        {"sampler": "gads"},
        {"sampler": {"name": "gdas", "sede": 1}},
        {"sampler": {"name": "gdas", "tau_end": 0}},
        {"controller": {"hidden": 2}},
        {"controller": {"name": "chunked", "position_dim": 15}},
        {"controller": {"name": "flat", "scale_rule": "hyperfan"}},
        {"context": "vector"},
        {"context": {"name": "vector", "dim": 2}},
        {"architecture": {"dim": 1}},
        {"strategy": {"rewrd": 1}},
        {"strategy": {"gradient_clip_val": 0}},
        {"hyper_tuner": {"nam": "TPE"}},
        {"checkpoint": "x"},
        {**MULTI_TRIAL, "sampler": "gdas"},
        {**MULTI_TRIAL, "sampler": {"name": "fair"}},
        {**MULTI_TRIAL, "report": "toy:report"},
        {**MULTI_TRIAL, "strategy": {"rerank": 1}},
        {"mode": "multi_trial", "sampler": "random"},
    ],
    ids=str,
)
def test_wrong_class_args_are_refused_as_the_check_does(class_args):
    document = experiment(class_args)
    assert not fits(document)
    with pytest.raises(ConfigError):
        check_class_args(document["tuner"]["classArgs"])


@pytest.mark.parametrize(
    "changes",
    [
        {"maxTrialNumbr": 3},
        {"maxTrialNumber": "3"},
        {"trialConcurrency": "many"},
        {"trialConcurrency": None},
        {"tuner": {"name": "TPE"}},
        {"tuner": {**RIGHT["tuner"], "classArg": {}}},
        {"searchSpace": None},
        {"searchSpace": {"sede": CHOICE}},
        {"searchSpace": {"seed": [1, 2]}},
        {"searchSpace": {"seed": {**CHOICE, "_type": "chioce"}}},
        {"trainingService": {"platform": "locl"}},
        {"trainingService": {"platform": "local", "useActivGpu": True}},
        {"trainingService": {"platform": "remote"}},
        {"trainingService": {"platform": "remote", "machineList": [{"hst": "a", "user": "b"}]}},
    ],
    ids=str,
)
def test_a_wrong_experiment_is_refused(changes):
    assert not fits(experiment(**changes))


def test_every_name_and_setting_of_a_part_is_known():
    for table in TABLES.values():
        for name, part in table.items():
            known = SCHEMA["$defs"][part.settings.__name__]["properties"]
            assert known["name"] == {"const": name} and {*known} == {"name", *settings_of(part.settings)}


def test_an_editor_shows_no_links_and_none_of_our_own_words():
    text = SCHEMA_FILE.read_text(encoding="utf-8")
    assert "](" not in text and '"x-' not in text
