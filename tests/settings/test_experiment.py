"""A whole experiment's YAML, NNI's part too, is checked in words, without loading torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import check_config

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
MULTI_TRIAL = {**ONE_SHOT, "mode": "multi_trial", "sampler": "random", "checkpoint": "shared.pt"}
CONFIGS = sorted(Path(__file__).parents[2].glob("configs/*.yml"))


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
        ({"trialConcurrency": 0}, "NNI refuses .*x.yml: assert self.trial_concurrency > 0"),
        (
            {"tuner": {"name": "DynamicWeightMutator", "classArg": {}}},
            "`classArg` in .*section `tuner`. Did .*`classArgs`",
        ),
        ({"trainingService": None}, "Missing key `trainingService` in .*x.yml"),
        ({"trainingService": "local"}, r"section `trainingService` is 'local' \(str\), but must be a mapping"),
        ({"trainingService": {}}, "Missing key `platform` in .*x.yml, section `trainingService`"),
        ({"trainingService": {"platform": "locl"}}, r"Unknown `platform` `locl` in .*Did you mean `local`\?"),
        (
            {"trainingService": [{"platform": "local", "useActivGpu": True}]},
            r"Unknown key `useActivGpu` in .*x.yml, section `trainingService`. Did you mean `useActiveGpu`\?",
        ),
    ],
)
def test_a_wrong_experiment_is_refused_in_words(experiment, change, words):
    with pytest.raises(ConfigError, match=words):
        check_config(experiment(change))


def test_nnis_keys_are_read_in_any_case_as_nni_does(experiment):
    """A YAML with `search_space` used to be told that it has no `searchSpace`."""
    service, tuner = (
        {"platform": "local", "use_active_gpu": False},
        {"name": "DynamicWeightMutator", "class_args": ONE_SHOT},
    )
    snake = {"search_space": {}, "training_service": service, "tuner": tuner}
    assert check_config(experiment({**snake, "searchSpace": None, "trainingService": None})).space == "toy:Space"


def test_a_yaml_that_nni_refused_spoils_no_other(experiment):
    """NNI kept its folder, and refused whatever was checked next in the same process."""
    with pytest.raises(ConfigError, match="NNI refuses"):
        check_config(experiment({"assessor": {"nme": "Medianstop"}}))
    check_config(experiment())


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


def test_checking_imports_neither_torch_nor_nni_nas(experiment):
    path = experiment()
    code = (
        "import sys; from nni_dynconv.settings import check_config; check_config(sys.argv[1]); "
        "heavy = {'torch', 'pytorch_lightning', 'nni.nas'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
