"""`nni-dynconv space`: NNI's own tuners accept what it prints, and their proposals are architectures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from spaces import Everything, OneChoice

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import validate_search_space
from nni.nas.nn.pytorch import ModelSpace

from nni_dynconv import DynamicWeightMutator
from nni_dynconv.commands import cli
from nni_dynconv.errors import ConfigError, SampleError, SpaceError
from nni_dynconv.experiments import trial
from nni_dynconv.experiments.search_space import _candidate, sample_of, search_space_of
from nni_dynconv.samplers import Choice

TESTS = Path(__file__).parents[1]


class Odd(ModelSpace):
    """Candidates that are neither strings nor whole numbers."""

    def __init__(self):
        super().__init__()
        padding = nni.choice("padding", [(0, 1), (1, 0), None])
        self.padding = self.add_mutable(padding)
        self.rate = self.add_mutable(nni.choice("rate", [1.0, 0.5]))
        self.flag = self.add_mutable(nni.choice("flag", [True, False]))


class Wide(ModelSpace):
    def __init__(self, widths):
        super().__init__()
        self.width = self.add_mutable(nni.choice("width", widths))


def through_json(value):
    """As NNI's manager passes it on: without the point of a whole number."""
    text = json.dumps(value).replace("1.0", "1")
    return json.loads(text)


def test_it_is_one_choice_for_each_label():
    assert search_space_of(OneChoice()) == {"op": {"_type": "choice", "_value": ["3x3", "5x5", "pool", "skip"]}}


@pytest.mark.parametrize("make", [OneChoice, Everything, Odd])
def test_nnis_tuners_accept_it_and_each_proposal_is_a_sample(make):
    search_space = through_json(search_space_of(make()))
    assert validate_search_space(search_space)
    tuner = TpeTuner(tpe_args={"n_startup_jobs": 2}, seed=0)
    tuner.update_search_space(search_space)
    for number in range(4):
        proposal = tuner.generate_parameters(number)
        sample = sample_of(make(), through_json(proposal))
        assert set(sample) == set(make().simplify())
        tuner.receive_trial_result(number, proposal, float(number))
        if make is not Odd:
            mutator = DynamicWeightMutator(make())
            assert sample_of(mutator.space, proposal) == sample
            assert mutator.freeze(sample)(torch.randn(2, 1, 6, 6)).isfinite().all()


def test_a_label_in_a_candidate_that_is_not_chosen_is_proposed_and_means_nothing():
    search_space = search_space_of(Everything())
    assert {"outer", "inner"} <= set(search_space)


def test_candidates_come_back_as_they_were():
    written = search_space_of(Odd())
    assert written["padding"]["_value"] == ["[0, 1]", "[1, 0]", "null"]
    sample = sample_of(Odd(), {"padding": "[1, 0]", "rate": 1, "flag": True, "learning_rate": 0.1})
    assert sample == {"padding": (1, 0), "rate": 1.0, "flag": True}
    assert sample_of(Odd(), {"padding": "null", "rate": 0.5, "flag": False})["padding"] is None


def test_a_candidate_comes_back_with_its_type():
    """`0` used to come back for `False`, and `1` for `True`."""
    choice = Choice("bias", (0, False, 1, True, "1", None))
    for value in (0, False, 1, True, "1"):
        found = _candidate(choice, value)
        assert found == value and type(found) is type(value)
    assert _candidate(choice, "null") is None


def test_candidates_that_nni_could_not_tell_apart_are_refused():
    with pytest.raises(SpaceError, match="`width` has the candidates None and 'null', and both are \"null\" in NNI's"):
        search_space_of(Wide([4, None, "null"]))


def test_a_proposal_of_another_space_is_refused():
    with pytest.raises(SampleError, match=r"The proposal has no `op`; it has \['opp'\]. Did you mean `opp`\?"):
        sample_of(OneChoice(), {"opp": "3x3"})
    with pytest.raises(SampleError, match="Make the search space anew: `nni-dynconv space`"):
        sample_of(OneChoice(), {})
    with pytest.raises(SampleError, match="Label `op` has no candidate '3x4'. Did you mean `3x3`"):
        sample_of(OneChoice(), {"op": "3x4"})
    with pytest.raises(SampleError, match="Label `rate` has no candidate True"):
        sample_of(Odd(), {"padding": "null", "rate": True, "flag": True})


def test_what_is_no_choice_is_refused():
    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.rate = self.add_mutable(nni.uniform("rate", 0, 1))

    with pytest.raises(SpaceError, match="Label `rate` is a"):
        search_space_of(Space())


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.chdir(TESTS)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        status = cli.main(["space", *arguments])
        return status, *capsys.readouterr()

    return run


def test_the_command_prints_json_and_nothing_else(command):
    status, output, error = command("--from", "toy_task:ToySpace")
    assert status == 0 and not error
    choices = {"first": ["1", "3"], "last": ["dynamic", "static"]}
    assert json.loads(output) == {key: {"_type": "choice", "_value": value} for key, value in choices.items()}


def test_the_command_gives_the_space_its_arguments(command):
    status, output, _ = command("--from", f"{__name__}:Wide", "--args", '{"widths": [4, 8, 16]}')
    assert status == 0 and json.loads(output)["width"]["_value"] == [4, 8, 16]


def test_the_command_refuses_in_words(command):
    status, _, error = command("--from", "toy_task")
    assert status == 2 and "`--from` in the command line is `toy_task`, but must be `module:Class`" in error
    status, _, error = command("--from", "toy_task:ToySpice")
    assert status == 2 and "has no `ToySpice`" in error and "Did you mean `ToySpace`?" in error


def test_the_command_refuses_arguments_that_are_none(command):
    status, _, error = command("--from", "toy_task:ToySpace", "--args", "x")
    assert status == 2 and "`--args` is `x`, which is not JSON: Expecting value" in error
    status, _, error = command("--from", "toy_task:ToySpace", "--args", "[1]")
    assert status == 2 and "`--args` is `[1]`, but must be a mapping of argument names. Write it as in" in error


def test_a_trial_takes_its_settings_from_a_yaml_and_its_architecture_from_any_tuner(tmp_path, monkeypatch):
    path = tmp_path / "settings.yml"
    named = "mode: multi_trial, space: spaces:OneChoice, evaluator: toy_task:evaluator, sampler: random"
    path.write_text(f"tuner: {{classArgs: {{{named}, checkpoint: shared}}}}\n")
    calls = []
    monkeypatch.setattr(trial, "evaluate_one", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(trial.nni, "get_next_parameter", lambda: {"op": "5x5"})
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    trial.main([str(path)])
    ((settings, sample, folder),) = calls
    assert sample == {"op": "5x5"} and folder == tmp_path and settings["evaluator"] == "toy_task:evaluator"

    path.write_text(path.read_text().replace("multi_trial", "one_shot").replace(", checkpoint: shared", ""))
    with pytest.raises(
        ConfigError, match="`mode` in .* is `one_shot`, but a trial of one architecture is `multi_trial`"
    ):
        trial.main([str(path)])


def test_a_trial_of_another_tuner_without_a_yaml_is_told_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(trial.nni, "get_next_parameter", lambda: {"op": "5x5"})
    with pytest.raises(ConfigError, match="For another tuner the command is `python3 -m nni_dynconv.trial CONFIG`"):
        trial.main()
