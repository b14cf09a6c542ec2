"""Settings are checked by name and type, in words, without loading torch."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import yaml

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings.config import (
    WARM_UP_OPTIONS,
    RunSettings,
    check_class_args,
    check_config,
    check_search_space,
    with_hyper_parameters,
)
from nni_dynconv.settings.parts import TABLES, ArchitectureSettings, StrategySettings
from nni_dynconv.settings.recipe import Recipe
from nni_dynconv.settings.references import load_object
from nni_dynconv.settings.typed import ranges_of

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
MULTI_TRIAL = {**ONE_SHOT, "mode": "multi_trial", "sampler": "random", "checkpoint": "shared.pt"}
CONFIGS = sorted(Path(__file__).parents[2].glob("configs/*.yml"))


def test_the_short_form_and_the_long_form_are_the_same():
    short = check_class_args({**ONE_SHOT, "sampler": "gdas"})
    long = check_class_args({**ONE_SHOT, "sampler": {"name": "gdas"}})
    assert short == long
    assert short.to_dict()["sampler"] == {"name": "gdas"}


def test_checked_settings_are_accepted_again():
    settings = check_class_args({**ONE_SHOT, "context": {"name": "vector", "in_features": 3, "dim": 4}})
    assert check_class_args(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"controler": "chunked"},
            r"Unknown key `controler` in section `tuner.classArgs`. Did you mean `controller`\?",
        ),
        ({"sampler": "gads"}, r"Unknown sampler `gads` in section `tuner.classArgs.sampler`. Did you mean `gdas`\?"),
        (
            {"sampler": {"name": "gdas", "sede": 1}},
            r"Unknown key `sede` in section `tuner.classArgs.sampler`. Did .*`seed`",
        ),
        (
            {"sampler": {"name": "gdas", "seed": "x"}},
            r"`seed` in section `tuner.classArgs.sampler` is 'x' \(str\), but must be an int",
        ),
        ({"controller": {"name": "chunked", "hidden": 1.5}}, r"`hidden` in .* is 1.5 \(float\), but must be an int"),
        ({"controller": {"hidden": 2}}, r"Missing `name` in section `tuner.classArgs.controller`"),
        ({"context": {"name": "vector", "dim": 2}}, r"Missing key `in_features` in section `tuner.classArgs.context`"),
        ({"context": "vectr"}, r"Unknown context `vectr`.*Did you mean `vector`"),
        ({"mode": "oneshot"}, r"Unknown `mode` `oneshot` in section `tuner.classArgs`. Did you mean `one_shot`\?"),
        ({"base": "learn"}, r"Unknown `base` `learn`.*Did you mean `learned`"),
        ({"seed": True}, r"`seed` in section `tuner.classArgs` is True \(bool\), but must be an int"),
        ({"space_args": [1]}, r"`space_args` in .* is \[1\] \(list\), but must be a mapping"),
        ({"space": "toy.Space"}, r"`space` in .* is `toy.Space`, but must be `module:Class`"),
        ({"strategy": {"rewrd": 1}}, r"Unknown key `rewrd` in section `tuner.classArgs.strategy`"),
        ({"checkpoint": "x.pt"}, r"`checkpoint` .* is for `mode: multi_trial`, but `mode` is `one_shot`"),
        ({"hyper_tuner": {"name": "Randm"}}, r"Unknown tuner `Randm` .*Did you mean `Random`"),
        ({"hyper_tuner": {"nam": "TPE"}}, r"Unknown key `nam` in section `tuner.classArgs.hyper_tuner`"),
        ({"optimize_mode": "max"}, r"Unknown `optimize_mode` `max`"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        check_class_args({**ONE_SHOT, **change})


@pytest.mark.parametrize("key", ["mode", "space", "evaluator"])
def test_a_required_setting_that_is_missing_is_named(key):
    with pytest.raises(ConfigError, match=f"Missing key `{key}` in section `tuner.classArgs`"):
        check_class_args({name: value for name, value in ONE_SHOT.items() if name != key})


@pytest.mark.parametrize("name", ["darts", "gdas"])
def test_multi_trial_refuses_samplers_that_learn_from_gradients(name):
    with pytest.raises(ConfigError, match=f"Sampler `{name}` .* learns from gradients.*Use `random` or `enas`"):
        check_class_args({**MULTI_TRIAL, "sampler": name})


def test_multi_trial_refuses_the_fair_sampler_for_what_it_does():
    """It used to say that this one learns from gradients."""
    with pytest.raises(ConfigError, match="Sampler `fair` .* trains all candidates of a supernet equally often, and"):
        check_class_args({**MULTI_TRIAL, "sampler": "fair"})


@pytest.mark.parametrize("key", ["contenders", "contender_batches", "rerank", "rerank_steps", "calibration_batches"])
def test_multi_trial_refuses_options_of_comparisons_that_it_does_not_make(key):
    """They used to be overwritten, or to have nothing to decide."""
    words = f"`{key}` in section `tuner.classArgs.strategy` is for `mode: one_shot`, but .* Leave it out."
    with pytest.raises(ConfigError, match=words):
        check_class_args({**MULTI_TRIAL, "strategy": {key: 1}})


def test_multi_trial_refuses_epochs_before_the_sampler_learns():
    """The sampler of a shared checkpoint's training learns nothing, before or after."""
    with pytest.raises(ConfigError, match="`warmup_epochs` in .* is for `mode: one_shot`"):
        check_class_args({**MULTI_TRIAL, "strategy": {"warmup_epochs": 1}})


def test_multi_trial_takes_the_options_of_its_shared_checkpoint():
    used = {"gradient_clip_val": 1.0, "log_every": 5, "norm_affine": False, "diagnose_every": 2}
    assert {*WARM_UP_OPTIONS} == {*used}
    assert check_class_args({**MULTI_TRIAL, "strategy": used}).strategy == used


def test_a_weight_that_goes_to_the_end_of_an_experiment_needs_one(experiment, tmp_path):
    """It used to be ignored in multi-trial mode."""
    (tmp_path / "shared.pt").touch()
    scheduled = {**MULTI_TRIAL, "sampler": {"name": "enas", "entropy_weight_end": 0.0}}
    check_config(experiment(class_args=scheduled))
    check_config(experiment({"maxTrialNumber": None, "max_trial_number": 5}, class_args=scheduled))
    with pytest.raises(
        ConfigError, match=r"`entropy_weight_end` in .*x.yml, section `tuner.classArgs.sampler` .* no `max"
    ):
        check_config(experiment({"maxTrialNumber": None, "maxExperimentDuration": "1h"}, class_args=scheduled))
    for other in ({"name": "enas"}, {"name": "enas", "entropy_weight_end": None}):
        check_config(experiment({"maxTrialNumber": None}, class_args={**MULTI_TRIAL, "sampler": other}))


def test_multi_trial_needs_a_checkpoint_and_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match="Missing `checkpoint`"):
        check_class_args({**MULTI_TRIAL, "checkpoint": None})
    (tmp_path / "toy.py").write_text("class Space: ...\ndef evaluator(): ...\n")
    with pytest.raises(ConfigError, match="shared.pt does not exist. Make it with `nni-dynconv warmup CONFIG`"):
        check_class_args(MULTI_TRIAL, code_directory=tmp_path)


def test_names_of_ones_own_classes_are_looked_up_in_the_source(tmp_path):
    with pytest.raises(ConfigError, match="`space` in .*There is no module `toy`, which `toy:Space` names"):
        check_class_args(ONE_SHOT, code_directory=tmp_path)
    (tmp_path / "toy.py").write_text("raise RuntimeError('never run')\nclass Spacy: ...\ndef evaluator(): ...\n")
    with pytest.raises(ConfigError, match="has no `Space`. Did you mean `Spacy`"):
        check_class_args(ONE_SHOT, code_directory=tmp_path)
    (tmp_path / "toy.py").write_text("class Space: ...\nfrom x import evaluator\n")
    check_class_args(ONE_SHOT, code_directory=tmp_path)


def test_ones_own_class_takes_any_argument():
    settings = check_class_args({**ONE_SHOT, "sampler": {"name": "mine:Sampler", "anything": 3}})
    assert settings.sampler.args == {"anything": 3}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "controller.position_dim",
            15,
            "`position_dim` in .*searchSpace.controller.position_dim` is 15, but must be an e",
        ),
        ("strategy.rerank_steps", 0, "`rerank_steps` in .* is 0, but must be 1 or more. To train none in the end"),
        ("architecture.dim", 1, "`dim` in .* is 1, but must be 2 or more"),
        ("sampler.tau_end", "0.1", r"`tau_end` in .* is '0.1' \(str\), but must be a float"),
        ("rank", 0, "`rank` in .* is 0, but must be 1 or more"),
        ("delta", "flim", "Unknown `delta` `flim` in .*Did you mean `film`|Known"),
        ("seed", -1, "`seed` in .* is -1, but must be 0 or more"),
    ],
)
def test_a_candidate_of_the_search_space_is_refused_before_a_trial_gets_it(key, value, words):
    """The trial that was given it used to refuse it, and the others went on."""
    settings = check_class_args({**ONE_SHOT, "architecture": {"dim": 4}})
    with pytest.raises(ConfigError, match=words):
        check_search_space({key: {"_type": "choice", "_value": [value]}}, settings, "x.yml")


def test_candidates_for_ones_own_class_and_functions_are_free():
    settings = check_class_args({**ONE_SHOT, "sampler": {"name": "mine:Sampler"}})
    choice = {"_type": "choice", "_value": [-1, "x", None]}
    check_search_space({"sampler.anything": choice, "space_args.width": choice}, settings, "x.yml")


def test_the_search_space_holds_settings_only():
    settings = check_class_args({**ONE_SHOT, "sampler": {"name": "gdas"}})
    choice = {"_type": "choice", "_value": [1, 2]}
    check_search_space({"sampler.seed": choice, "evaluator_args.epochs": choice, "seed": choice}, settings, "x.yml")
    with pytest.raises(
        ConfigError, match="Unknown setting `sampler.sede` in x.yml, section `searchSpace`. Did .*`sampler.seed`"
    ):
        check_search_space({"sampler.sede": choice}, settings, "x.yml")
    with pytest.raises(ConfigError, match="must be a mapping with `_type` and `_value`"):
        check_search_space({"seed": [1, 2]}, settings, "x.yml")
    with pytest.raises(ConfigError, match="must be `{}` in `mode: multi_trial`, but has `seed`"):
        check_search_space({"seed": choice}, check_class_args(MULTI_TRIAL), "x.yml")


def test_hyper_parameters_go_to_their_places_in_a_copy():
    settings = check_class_args(ONE_SHOT).to_dict()
    merged = with_hyper_parameters(settings, {"sampler.seed": 5, "evaluator_args.epochs": 2})
    assert merged["sampler"] == {"name": "gdas", "seed": 5}
    assert merged["evaluator_args"] == {"epochs": 2}
    assert settings["evaluator_args"] == {} and "seed" not in settings["sampler"]


def test_an_object_that_is_not_there_is_told_in_words():
    assert load_object("fractions:Fraction").__name__ == "Fraction"
    with pytest.raises(ConfigError, match="There is no module `no_such_module`"):
        load_object("no_such_module:x")
    with pytest.raises(ConfigError, match="Module `fractions` has no `Fractoin`.*Did you mean `Fraction`"):
        load_object("fractions:Fractoin")


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "toy.py").write_text("class Space: ...\ndef evaluator(): ...\n")

    def write(change=None, class_args=None, name="x.yml"):
        document = {
            "searchSpace": {},
            "trialCommand": "python3 trial.py",
            "trialConcurrency": 1,
            "maxTrialNumber": 1,
            "tuner": {"name": "DynamicWeightMutator", "classArgs": {**ONE_SHOT, **(class_args or {})}},
            "trainingService": {"platform": "local"},
            **(change or {}),
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
        return path

    return write


def test_a_good_experiment_passes(experiment):
    assert check_config(experiment()).mode == "one_shot"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"maxTrialNumbr": 3}, r"Unknown key `maxTrialNumbr` in .*x.yml. Did you mean `maxTrialNumber`\?"),
        (
            {"tuner": {"name": "TPE"}},
            "`tuner.name` in .*x.yml is `TPE`, but this project's tuner is `DynamicWeightMutator`",
        ),
        ({"tuner": None}, "Missing key `tuner`"),
        ({"searchSpace": None}, "Missing key `searchSpace`"),
        ({"trialCommand": None}, "Missing `trialCommand`.*`python3 -m nni_dynconv.trial`"),
        ({"trialCommand": "no-such-program x"}, "starts with `no-such-program`, which is no command"),
        ({"trialCodeDirectory": "nowhere"}, "`trialCodeDirectory` in .* is `nowhere`, but .*nowhere is no directory"),
        ({"trialConcurrency": "many"}, "NNI refuses .*x.yml: .*trial_?[cC]oncurrency"),
    ],
)
def test_a_wrong_experiment_is_refused_in_words(experiment, change, words):
    with pytest.raises(ConfigError, match=words):
        check_config(experiment(change))


def test_class_args_are_told_with_their_file(experiment):
    path = experiment(class_args={"controler": 1})
    with pytest.raises(ConfigError) as told:
        check_config(path)
    assert str(told.value) == (
        f"Unknown key `controler` in {path}, section `tuner.classArgs`. Did you mean `controller`?"
    )


def test_a_file_that_is_missing_or_no_yaml_is_told(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read .*none.yml: No such file"):
        check_config(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_text("a: [1")
    with pytest.raises(ConfigError, match="bad.yml is not YAML"):
        check_config(tmp_path / "bad.yml")
    (tmp_path / "list.yml").write_text("[1]")
    with pytest.raises(ConfigError, match=r"list.yml is \[1\] \(list\), but must be a mapping"):
        check_config(tmp_path / "list.yml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_yaml_of_the_project_passes(path):
    check_config(path, checkpoint_needed=False)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table], ids=lambda value: value
)
def test_settings_are_the_keyword_arguments_of_their_class(kind, name):
    part = TABLES[kind][name]
    _same_arguments(part.settings, load_object(part.dotted).__init__)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_of_smoothness_that_cannot_be_is_refused(weight):
    given = {**ONE_SHOT, "context": {"name": "vector", "in_features": 3, "dim": 8}}
    with pytest.raises(
        ConfigError, match=f"`smoothness` in .*strategy.* is {weight}, but must be (0 or more|a finite number)"
    ):
        check_class_args({**given, "strategy": {"smoothness": weight}})
    assert check_class_args({**given, "strategy": {"smoothness": 0.1}}).strategy == {"smoothness": 0.1}


@pytest.mark.parametrize(("context", "name"), [(None, "null"), ({"name": "own_input", "dim": 8}, "own_input")])
def test_smoothness_without_a_context_that_is_given_is_refused(context, name):
    with pytest.raises(ConfigError, match=f"is 0.1, but `context` is `{name}`.*Name another one"):
        check_class_args({**ONE_SHOT, "context": context, "strategy": {"smoothness": 0.1}})
    check_class_args({**ONE_SHOT, "context": context, "strategy": {"smoothness": 0.0}})


def test_strategy_settings_are_the_keyword_arguments_of_the_strategy():
    _same_arguments(StrategySettings, load_object("nni_dynconv.search.strategy:DynamicStrategy").__init__)


def _same_arguments(settings, function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if name not in ("self", "mutator", "diagnosis") and one.kind not in kinds
    }
    ours = {one.name: inspect.Parameter.empty if one.default is MISSING else one.default for one in fields(settings)}
    assert ours == parameters


# Ranges: the YAML and the Python classes refuse the same numbers

PLACES = {
    f"{kind}: {name}": (part.settings, part.dotted) for kind, names in TABLES.items() for name, part in names.items()
}
PLACES |= {
    "strategy": (StrategySettings, "nni_dynconv.search.strategy:DynamicStrategy"),
    "architecture": (ArchitectureSettings, "nni_dynconv.generation.architecture:ArchitectureEncoder"),
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


def outside(table, name):
    """Numbers that a setting does not take."""
    one = ranges_of(table)[name]
    values = [one.least - 1, one.most + 1, one.above, one.least + 1 if one.even else math.inf]
    found = [value for value in values if math.isfinite(value)]
    return found if get_type_hints(table)[name] is int else [*found, math.nan, math.inf, -math.inf]


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
    numbers = {name for name, hint in get_type_hints(table).items() if hint in (int, float, float | None)}
    known_elsewhere = {"rank"} if table is RunSettings else set()  # of a recipe, by which it is checked
    assert numbers - known_elsewhere == set(ranges_of(table))


@pytest.mark.parametrize("place", [place for place, (_, dotted) in PLACES.items() if dotted])
def test_the_ends_of_a_range_and_null_are_accepted(place):
    table, _ = PLACES[place]
    for name, one in ranges_of(table).items():
        for value in (one.least, one.most, one.above + 1e-3 if one.above > -math.inf else math.inf):
            if math.isfinite(value):
                check_class_args(class_args(place, {**required(table), name: value}))
    optional = [name for name, hint in get_type_hints(table).items() if hint == float | None]
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


def test_checking_imports_neither_torch_nor_nni_nas(experiment):
    path = experiment()
    code = (
        "import sys; from nni_dynconv.settings.config import check_config; check_config(sys.argv[1]); "
        "heavy = {'torch', 'pytorch_lightning', 'nni.nas'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
