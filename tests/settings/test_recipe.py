"""Base, delta and architecture in a YAML: checked by name as in Python, and built."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import pytest
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv import ArchitectureEncoder, DynamicWeightMutator, OwnInputContext, export, lift
from nni_dynconv.errors import ConfigError, ExportError
from nni_dynconv.experiments import trial
from nni_dynconv.settings import ArchitectureSettings, Recipe, check_class_args, check_search_space, recipes_of

ONE_SHOT = {"mode": "one_shot", "space": "toy_task:ToySpace", "evaluator": "toy_task:evaluator"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta": "none"}, r"In section `tuner.classArgs` the delta `none` has no base to change"),
        ({"delta": "ful"}, r"Unknown `delta` `ful` in section `tuner.classArgs`. Did you mean `full`"),
        ({"delta": 3}, r"`delta` in section `tuner.classArgs` is 3 \(int\), but must be a string"),
        ({"rank": 0}, r"`rank` in section `tuner.classArgs` is 0, but must be 1 or more"),
        ({"per_site": ["body"]}, r"`per_site` in section `tuner.classArgs` is \['body'\] \(list\), but must be a mapp"),
        ({"per_site": {"body": {"rnk": 3}}}, r"Unknown key `rnk` in section `tuner.classArgs.per_site.body`.*`rank`"),
        (
            {"per_site": {"body": {"delta": "scale"}}},
            r"In section `tuner.classArgs.per_site.body` the delta `scale` has",
        ),
        ({"architecture": {}}, r"Missing key `dim` in section `tuner.classArgs.architecture`"),
        (
            {"architecture": {"dim": "8"}},
            r"`dim` in section `tuner.classArgs.architecture` is '8' \(str\), but must be",
        ),
        ({"architecture": {"dmi": 8}}, r"Unknown key `dmi` in section `tuner.classArgs.architecture`"),
        ({"context": "own_input"}, r"Missing key `dim` in section `tuner.classArgs.context`"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        check_class_args({**ONE_SHOT, **change})


def test_a_bare_null_is_none_as_people_write_it():
    settings = check_class_args({**ONE_SHOT, "base": "learned", "delta": None, "per_site": {"a": {"delta": None}}})
    assert (settings.base, settings.delta, settings.per_site) == ("learned", "none", {"a": {"delta": "none"}})
    assert check_class_args({**ONE_SHOT, "base": None}).base == "none"


def test_checked_settings_are_accepted_again():
    section = {"base": "learned", "delta": "low_rank", "rank": 2, "per_site": {"body/*": {"delta": "scale"}}}
    settings = check_class_args({**ONE_SHOT, **section, "architecture": {"dim": 4}})
    assert check_class_args(settings.to_dict()) == settings


def test_they_are_hyper_parameters_too():
    settings = check_class_args({**ONE_SHOT, "base": "learned", "architecture": {"dim": 4}})
    values = {"_type": "choice", "_value": [4, 8]}
    kinds = {"_type": "choice", "_value": ["scale", "full"]}
    check_search_space({"delta": kinds, "rank": values, "architecture.dim": values}, settings, "x.yml")
    with pytest.raises(ConfigError, match=r"Unknown setting `architecture.dmi` in .*Did you mean `architecture.dim`"):
        check_search_space({"architecture.dmi": values}, settings, "x.yml")


def test_settings_are_the_arguments_of_what_they_are_for():
    parameters = inspect.signature(DynamicWeightMutator.__init__).parameters
    assert {one.name: one.default for one in fields(Recipe)} == {
        name: parameters[name].default for name in ("base", "delta", "rank")
    }
    (dim,) = fields(ArchitectureSettings)
    own = inspect.signature(ArchitectureEncoder).parameters
    assert list(own) == [dim.name] and dim.default is MISSING and own["dim"].default is inspect.Parameter.empty


def test_a_trial_builds_what_the_yaml_says():
    section = {"base": "learned", "per_site": {"first/3": {"delta": "low_rank", "rank": 1}}, "architecture": {"dim": 4}}
    mutator, *_ = trial.build({**ONE_SHOT, **section, "context": {"name": "own_input", "dim": 8}})
    assert isinstance(mutator.context, OwnInputContext) and mutator.source.architecture.dim == 4
    assert {recipe.delta for recipe in mutator.source.recipes.values()} == {"low_rank", "full"}


class Static(ModelSpace):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1)], label="op")

    def forward(self, x):
        return self.op(x)


def lifted_space():
    return lift(Static()).space


def test_a_yaml_may_name_a_function_that_lifts_a_space():
    mutator, *_ = trial.build({**ONE_SHOT, "space": f"{__name__}:lifted_space", "base": "given"})
    assert {recipe.base for recipe in mutator.source.recipes.values()} == {"given"}


def decided(per_site, *names):
    sites = {name: {} for name in names}
    return {name: one.delta for name, one in recipes_of(sites, dict.fromkeys(sites, Recipe()), per_site).items()}


def test_a_pattern_that_decides_for_no_site_is_refused():
    low, full = {"delta": "low_rank"}, {"delta": "full"}
    assert decided({"stem/a": full, "*": low}, "stem/a", "stem/b") == {"stem/a": "full", "stem/b": "low_rank"}
    with pytest.raises(ConfigError, match=r"`stem/\*` after `\*`, where all its sites are matched .* Put it first"):
        decided({"*": low, "stem/*": full}, "stem/a", "body")
    with pytest.raises(ConfigError, match=r"`stem/\*` after `stem/a`, `\*b`, where all"):
        decided({"stem/a": low, "*b": low, "stem/*": full}, "stem/a", "stem/b")
    with pytest.raises(ConfigError, match=r"`stm/\*`, which matches none of the 2 sites.*Did you mean `stem/a`"):
        decided({"stm/*": low}, "stem/a", "body")


def test_a_name_with_brackets_matches_itself():
    name = "conv.k=[3, 3]"
    assert decided({name: {"delta": "low_rank"}}, name, "conv.k=[5, 5]") == {name: "low_rank", "conv.k=[5, 5]": "full"}


def test_a_yaml_whose_delta_was_edited_after_the_checkpoint_was_made_is_refused(tmp_path):
    """The controller's tensors have the same shapes, and the trial used to run with weights that mean other things."""
    settings = {**ONE_SHOT, "mode": "multi_trial", "checkpoint": str(tmp_path), "sampler": "random"}
    mutator, *_ = trial.build(settings)
    export.save_supernet(mutator, tmp_path)
    with pytest.raises(ExportError, match="`sites.first/1.recipe.delta` is low_rank here but full there. Delete the f"):
        trial.evaluate_one({**settings, "delta": "low_rank"}, mutator.reset(), tmp_path)
