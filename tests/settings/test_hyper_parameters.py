"""A search space holds settings of the run, by their dotted names."""

from __future__ import annotations

import pytest

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import check_class_args, check_search_space, with_hyper_parameters

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
MULTI_TRIAL = {**ONE_SHOT, "mode": "multi_trial", "sampler": "random", "checkpoint": "shared.pt"}


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


def test_a_type_that_nni_does_not_have_is_refused():
    """The experiment used to start, and NNI's tuner to end it."""
    settings = check_class_args(ONE_SHOT)
    words = "Unknown `_type` `unifrom` in x.yml, section `searchSpace.space_args.x`. Did you mean `uniform`"
    with pytest.raises(ConfigError, match=words):
        check_search_space({"space_args.x": {"_type": "unifrom", "_value": [0, 1]}}, settings, "x.yml")


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
