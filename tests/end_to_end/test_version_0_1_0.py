"""What version 0.1.0 wrote is read: networks, a supernet, a tuner's state, an experiment's YAML."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nni_dynconv
from nni_dynconv import export
from nni_dynconv.experiments.tuner import DynamicWeightTuner
from nni_dynconv.settings import check_config

FILES = Path(__file__).parents[1] / "fixtures" / "v0_1_0"
NETWORKS = ("chunked", "low_rank", "coordinate", "experts", "flat")


@pytest.fixture
def make(monkeypatch):
    """The module that wrote the files."""
    monkeypatch.syspath_prepend(str(FILES))
    yield importlib.import_module("make")
    sys.modules.pop("make", None)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_what_it_gave(name):
    network, example = nni_dynconv.load(FILES / name), load_file(FILES / name / "example.safetensors")
    torch.testing.assert_close(network(example["x"], example.get("context")), example["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "folder"), [("chunked", "supernet"), ("flat", "supernet_flat")])
def test_a_supernet_comes_back(name, folder, make):
    """Bases were flat vectors by number: ``flat`` has some, of which one is a normalisation's."""
    mutator, candidate, context = make.mutator_of(name)
    for parameter in mutator.space.parameters():
        torch.nn.init.zeros_(parameter)
    export.load_supernet(mutator, FILES / folder)
    network = mutator.freeze({"op": candidate}).eval()
    example = load_file(FILES / name / "example.safetensors")
    torch.testing.assert_close(network(make.IMAGE, context), example["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["one_shot", "multi_trial"])
def test_a_tuner_goes_on(mode, make, tmp_path, monkeypatch):
    shutil.copytree(FILES / f"tuner_{mode}", tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    monkeypatch.chdir(FILES)
    tuner = DynamicWeightTuner(**(make.ONE_SHOT if mode == "one_shot" else make.MULTI_TRIAL))
    tuner.load_checkpoint()
    tuner.update_search_space({})
    assert tuner.state_dict()["results"] == {"0": 0.5, "2": 2.5}
    assert tuner.generate_parameters(4)["proposal"] == 4


def test_an_experiment_is_well_formed(make):
    settings = check_config(FILES / "experiment.yml")
    assert settings.delta == "none" and settings.rank == 4 and settings.sampler.args["learning_rate"] == 0.02
