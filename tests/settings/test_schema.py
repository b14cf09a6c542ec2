"""The JSON Schema of an experiment's YAML takes what is right, and refuses what is wrong; a file of it ships."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

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

VALIDATOR = Draft7Validator(SCHEMA)


def fits(document):
    return VALIDATOR.is_valid(document)


def test_it_is_a_schema():
    Draft7Validator.check_schema(SCHEMA)


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
