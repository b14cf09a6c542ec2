"""Settings of a run are checked by name and type, and by what goes together, in words."""

from __future__ import annotations

import pytest

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import check_class_args
from nni_dynconv.settings.run import WARM_UP_OPTIONS

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
MULTI_TRIAL = {**ONE_SHOT, "mode": "multi_trial", "sampler": "random", "checkpoint": "shared.pt"}


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
        ({"mode": 1}, r"`mode` in section `tuner.classArgs` is 1 \(int\), but must be a string"),
        ({3: 1}, r"Unknown key `3` in section `tuner.classArgs`. Known: `mode`"),
        ({"space_args": {1: 2}}, r"`1` in section `tuner.classArgs.space_args` is 1 \(int\), but must be a string"),
        ({"architecture": 16}, r"`architecture` in .* is 16 \(int\), but must be a mapping or null"),
        (
            {"per_site": {"body": "full"}},
            r"`body` in section `tuner.classArgs.per_site` is 'full' \(str\), but must be",
        ),
        (
            {"controller": {"name": "coordinate", "nesting": "center"}},
            r"`nesting` in section `tuner.classArgs.controller` is .* one of .*'free'. Did you mean `centre`\?",
        ),
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


@pytest.mark.parametrize("recipe", [{"delta": "auto"}, {"base": "learned", "per_site": {"stem": {"delta": "auto"}}}])
def test_multi_trial_refuses_recipes_that_each_process_would_pick(recipe):
    with pytest.raises(ConfigError, match="`delta` in .* is `auto`, which each process would pick"):
        check_class_args({**MULTI_TRIAL, **recipe}, where="`tuner.classArgs`")


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("final_search", "evolution"),
        ("objectives", ["seconds"]),
        ("budget", {"seconds": 1.0}),
        ("proxy", "synflow"),
        ("pick", "knee"),
    ],
)
def test_multi_trial_refuses_what_says_how_a_search_ends(key, value):
    """The trials compare architectures there."""
    with pytest.raises(ConfigError, match="`[a-z_]+` in .* is for `mode: one_shot`, but `mode` is `multi_trial`"):
        check_class_args({**MULTI_TRIAL, "strategy": {key: value}})


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (
            {"objectives": ["flops"]},
            "Unknown cost `flops` in `objectives` in section `tuner.classArgs.strategy`. Known",
        ),
        ({"budget": {"seconds": -1}}, "`seconds` in section `tuner.classArgs.strategy.budget` is -1, but must be more"),
        ({"pick": "knee"}, "`pick` in section `tuner.classArgs.strategy` is 'knee', but there is no front"),
    ],
)
def test_how_a_search_ends_is_checked_before_it_starts(strategy, words):
    with pytest.raises(ConfigError, match=words):
        check_class_args({**ONE_SHOT, "strategy": strategy})


def test_multi_trial_takes_the_options_of_its_shared_checkpoint():
    used = {"gradient_clip_val": 1.0, "log_every": 5, "sandwich": 2, "norm_affine": False, "diagnose_every": 2}
    used |= {"on_not_finite": "skip", "on_error": "skip", "skip_limit": 5}
    assert {*WARM_UP_OPTIONS} == {*used}
    assert check_class_args({**MULTI_TRIAL, "strategy": used}).strategy == used


def test_multi_trial_needs_a_checkpoint_and_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match="Missing `checkpoint`"):
        check_class_args({**MULTI_TRIAL, "checkpoint": None})
    (tmp_path / "toy.py").write_text("class Space: ...\ndef evaluator(): ...\n")
    with pytest.raises(ConfigError, match="shared.pt does not exist. Make it with `nni-dynconv warmup CONFIG`"):
        check_class_args(MULTI_TRIAL, code_directory=tmp_path)


def test_ones_own_class_takes_any_argument():
    settings = check_class_args({**ONE_SHOT, "sampler": {"name": "mine:Sampler", "anything": 3}})
    assert settings.sampler.args == {"anything": 3}


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
