"""The tuner: light until connected, learns once from each result, and goes on as it was after a resume."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
import threading
import types

import pytest

from nni_dynconv import files
from nni_dynconv.errors import ConfigError, DynConvError
from nni_dynconv.experiments import tuner as tuner_module
from nni_dynconv.experiments.multi_trial import MultiTrial, checkpoint_for_trials
from nni_dynconv.experiments.one_shot import OneShot
from nni_dynconv.experiments.tuner import DynamicWeightTuner, experiment_code_directory, experiment_trials
from nni_dynconv.files import write_atomically

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
MULTI_TRIAL = {
    **ONE_SHOT,
    "mode": "multi_trial",
    "space": "fake_task:Space",
    "sampler": "fake_task:Sampler",
    "checkpoint": "shared.pt",
}
HYPER = {"sampler.seed": {"_type": "randint", "_value": [0, 10**6]}}
HYPER_CHOICE = {"sampler.seed": {"_type": "choice", "_value": [1, 2, 3]}}


class FakeSampler:
    """Counts what it learns; its state is a seeded generator and the sum of rewards per choice."""

    def __init__(self, *, seed=0):
        self.random = random.Random(seed)
        self.rewards = []
        self.told = []  # of the search's progress

    def bind(self, choices):
        self.choices = choices

    def sample(self):
        return {label: self.random.choice(candidates) for label, candidates in self.choices.items()}

    def anneal(self, progress):
        self.told.append(progress)

    def observe(self, sample, reward):
        self.rewards.append([sample["op"], reward])

    def state_dict(self):
        return {"random": json.dumps(self.random.getstate()), "rewards": list(self.rewards)}

    def load_state_dict(self, state):
        version, numbers, gauss = json.loads(state["random"])
        self.random.setstate((version, tuple(numbers), gauss))
        self.rewards = list(state["rewards"])


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A space and a sampler of a few lines, and a folder where NNI would keep the tuner's state."""
    task = types.ModuleType("fake_task")
    task.Space, task.Sampler = type("Space", (), {}), FakeSampler
    samplers = types.ModuleType("nni_dynconv.samplers")
    samplers.choices_of = lambda space: {"op": ("3x3", "5x5", "7x7"), "skip": (True, False)}
    monkeypatch.setitem(sys.modules, "fake_task", task)
    monkeypatch.setitem(sys.modules, "nni_dynconv.samplers", samplers)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    return tmp_path


def started(class_args, search_space=None, resumed=False):
    tuner = DynamicWeightTuner(**class_args)
    if resumed:
        tuner.load_checkpoint()
    tuner.update_search_space(search_space or {})
    return tuner


def test_constructing_it_imports_neither_torch_nor_lightning_nor_nni_nas():
    code = (
        "import sys; from nni_dynconv.tuner import DynamicWeightTuner; import json; "
        "DynamicWeightTuner(**json.loads(sys.argv[1])); "
        "heavy = {'torch', 'pytorch_lightning', 'nni.nas'} & set(sys.modules); assert not heavy, heavy"
    )
    for class_args in (ONE_SHOT, {**MULTI_TRIAL, "sampler": "enas"}):
        subprocess.run([sys.executable, "-c", code, json.dumps(class_args)], check=True)


def test_the_constructor_refuses_in_the_words_of_check():
    with pytest.raises(
        ConfigError, match="Unknown key `controler` in section `tuner.classArgs`. Did you mean `controller`"
    ):
        DynamicWeightTuner(**ONE_SHOT, controler="chunked")


def nnis_arguments(folder, **others):
    """The command line by which NNI tells the tuner's process of the experiment."""
    params = {"trainingService": {"trialCodeDirectory": str(folder)}, **others}
    return ["x", "--exp_params", base64.b64encode(json.dumps(params).encode()).decode()]


def test_it_finds_what_nni_tells_it(tmp_path):
    assert experiment_code_directory(nnis_arguments(tmp_path)) == tmp_path
    assert experiment_trials(nnis_arguments(tmp_path)) is None
    assert experiment_trials(nnis_arguments(tmp_path, maxTrialNumber=20)) == 20
    assert experiment_code_directory(["pytest"]) is None and experiment_trials(["pytest"]) is None


def test_a_call_before_the_search_space_says_what_to_call():
    with pytest.raises(DynConvError, match="Call `update_search_space` first"):
        DynamicWeightTuner(**ONE_SHOT).generate_parameters(0)


# One-shot


def test_each_repeat_gets_the_settings_and_its_own_seeds(fake):
    tuner = started({**ONE_SHOT, "seed": 5, "sampler": {"name": "gdas", "seed": 10}})
    first, second = tuner.generate_parameters(0), tuner.generate_parameters(1)
    assert first["mode"] == "one_shot" and first["hyper_parameters"] == {}
    assert [one["settings"]["seed"] for one in (first, second)] == [5, 6]
    assert [one["settings"]["sampler"]["seed"] for one in (first, second)] == [10, 11]
    assert [one["proposal"] for one in (first, second)] == [0, 1]
    assert tuner.settings.seed == 5
    json.dumps(first)


def test_each_trial_of_multi_trial_mode_gets_its_own_seed(fake):
    tuner = started({**MULTI_TRIAL, "seed": 5})
    assert [tuner.generate_parameters(number)["settings"]["seed"] for number in (0, 1)] == [5, 6]
    assert tuner.settings.seed == 5


def test_an_nni_tuner_proposes_the_hyper_parameters(fake):
    tuner = started({**ONE_SHOT, "hyper_tuner": {"name": "TPE", "classArgs": {"seed": 1}}}, HYPER)
    proposal = tuner.generate_parameters(0)
    assert proposal["settings"]["sampler"]["seed"] == proposal["hyper_parameters"]["sampler.seed"]
    tuner.receive_trial_result(0, proposal, {"default": 1.0})
    assert tuner.state_dict()["results"] == {"0": 1.0}


def test_the_hyper_tuner_is_told_of_a_trial_that_an_assessor_stopped(fake):
    """It used to wait for its result for ever, and to count it as a bad one meanwhile."""
    tuner = started({**ONE_SHOT, "hyper_tuner": {"name": "TPE", "classArgs": {"seed": 1}}}, HYPER)
    proposals = [tuner.generate_parameters(number) for number in range(3)]
    waiting = tuner._engine._hyper_tuner._running_params
    tuner.trial_end(0, False)
    tuner.trial_end(1, True)  # may come before the result
    assert set(waiting) == {1, 2}
    for number in (0, 1):  # the first reported just before it was stopped
        tuner.receive_trial_result(number, proposals[number], float(number))
    assert set(waiting) == {2}
    assert len(tuner._engine._hyper_tuner._history["sampler.seed",]) == 2


def test_a_hyper_tuner_that_has_proposed_all_there_is_ends_the_proposals_and_not_the_tuner(fake, monkeypatch):
    """It used to end the experiment as an error."""
    space = {"sampler.seed": {"_type": "choice", "_value": [1, 2]}}
    tuner = started({**ONE_SHOT, "hyper_tuner": {"name": "GridSearch"}}, space)
    monkeypatch.setenv("SDK_PROCESS", "dispatcher")
    monkeypatch.setattr(tuner_module.os, "_exit", lambda status: pytest.fail("the tuner's process ended"))
    assert len(tuner.generate_multiple_parameters([0, 1, 2])) == 2
    assert len(tuner.state_dict()["proposals"]) == 2


def test_the_end_of_a_trial_matters_to_no_sampler(fake):
    tuner = started(MULTI_TRIAL)
    tuner.generate_parameters(0)
    state = tuner.state_dict()
    tuner.trial_end(0, False)
    assert tuner.state_dict() == state


def test_a_resumed_one_shot_run_does_not_repeat_its_hyper_parameters(fake):
    tuner = started(ONE_SHOT, HYPER)
    seen = [tuner.generate_parameters(number)["hyper_parameters"]["sampler.seed"] for number in range(3)]
    tuner.receive_trial_result(0, {"proposal": 0}, 2.0)
    again = started(ONE_SHOT, HYPER, resumed=True)
    proposal = again.generate_parameters(1)
    assert proposal["proposal"] == 3
    assert proposal["hyper_parameters"]["sampler.seed"] not in seen
    assert again.state_dict()["results"] == {"0": 2.0}


@pytest.mark.parametrize("name", ["TPE", "GridSearch", "Evolution"])
def test_a_result_of_an_unknown_proposal_teaches_no_hyper_tuner(name, fake, caplog):
    """Some used to end the tuner's process with a bare `KeyError`."""
    tuner = started({**ONE_SHOT, "hyper_tuner": {"name": name}}, HYPER_CHOICE)
    tuner.import_data([{"parameter": None, "value": {"default": 1.0, "proposal": 7}}])
    tuner.import_data([{"parameter": {"hyper_parameters": {"seed": 1}}, "value": 2.0}])
    assert "A result is refused: nothing was proposed under the number 7" in caplog.text
    assert caplog.text.count("without the hyper-parameters of this search space teaches nothing") == 1
    assert tuner.generate_parameters(0)["hyper_parameters"]["sampler.seed"] in (1, 2, 3)


def test_a_resumed_grid_search_leaves_out_what_nni_runs_again(fake):
    """NNI runs an unfinished trial again by itself; the same values used to be proposed once more."""
    settings = {**ONE_SHOT, "hyper_tuner": {"name": "GridSearch"}}
    tuner = started(settings, HYPER_CHOICE)
    before = [tuner.generate_parameters(number) for number in range(2)]
    tuner.receive_trial_result(0, before[0], {"default": 1.0, "proposal": 0})
    again = started(settings, HYPER_CHOICE, resumed=True)
    after = again.generate_multiple_parameters([2, 3, 4])
    seeds = [one["hyper_parameters"]["sampler.seed"] for one in before + after]
    assert sorted(seeds) == [1, 2, 3]


def test_a_search_space_that_does_not_fit_is_refused_in_words(fake):
    with pytest.raises(ConfigError, match="Unknown setting `sampler.sede` in the experiment, section `searchSpace`"):
        started(ONE_SHOT, {"sampler.sede": HYPER["sampler.seed"]})


# Multi-trial


def test_a_proposal_holds_a_sample(fake):
    proposal = started(MULTI_TRIAL).generate_parameters(0)
    assert set(proposal["sample"]) == {"op", "skip"}
    json.dumps(proposal)


def test_trials_find_the_checkpoint_in_the_code_directory_or_by_its_absolute_path(tmp_path):
    """NNI copies the code directory to the machines of its `remote` service."""
    for given, expected in (("in/shared", "in/shared"), ("../shared", str(tmp_path.resolve() / "shared"))):
        settings = DynamicWeightTuner(**{**MULTI_TRIAL, "checkpoint": given}).settings
        assert checkpoint_for_trials(settings, tmp_path / "code") == expected


@pytest.mark.parametrize("value", [0.5, {"default": 0.5, "other": 1}, "0.5"])
def test_results_in_any_order_teach_the_sampler_their_own_sample(fake, value):
    tuner = started(MULTI_TRIAL)
    proposals = [tuner.generate_parameters(number) for number in range(3)]
    for number in (2, 0):
        tuner.receive_trial_result(number, proposals[number], value)
    assert tuner._engine.sampler.rewards == [[proposals[2]["sample"]["op"], 0.5], [proposals[0]["sample"]["op"], 0.5]]


def test_a_result_that_names_its_proposal_is_believed_over_nnis_record(fake):
    tuner = started(MULTI_TRIAL)
    first, second = tuner.generate_parameters(0), tuner.generate_parameters(1)
    tuner.import_data([{"parameter": first, "value": {"default": 1.0, "proposal": 1}}])
    assert tuner._engine.sampler.rewards == [[second["sample"]["op"], 1.0]]


def test_to_minimise_is_to_maximise_the_negative(fake):
    tuner = started({**MULTI_TRIAL, "optimize_mode": "minimize"})
    tuner.receive_trial_result(0, tuner.generate_parameters(0), 3.0)
    assert tuner._engine.sampler.rewards[0][1] == -3.0


@pytest.mark.parametrize("value", [float("nan"), None, "none", {"loss": 1.0}])
def test_a_result_that_is_no_number_teaches_nothing(fake, value):
    tuner = started(MULTI_TRIAL)
    tuner.receive_trial_result(0, tuner.generate_parameters(0), value)
    assert tuner._engine.sampler.rewards == []


def test_results_on_many_threads_are_each_counted_once(fake):
    tuner = started(MULTI_TRIAL)
    proposals = [tuner.generate_parameters(number) for number in range(24)]
    threads = [
        threading.Thread(target=tuner.receive_trial_result, args=(number % 24, proposals[number % 24], 1.0))
        for number in range(48)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tuner._engine.sampler.rewards) == 24


def test_a_resumed_run_goes_on_where_it_stopped_and_counts_nothing_twice(fake):
    tuner = started(MULTI_TRIAL)
    proposals = [tuner.generate_parameters(number) for number in range(4)]
    tuner.receive_trial_result(0, proposals[0], 1.0)
    tuner.receive_trial_result(2, proposals[2], 2.0)
    state = tuner.state_dict()

    again = started(MULTI_TRIAL, resumed=True)
    assert again.state_dict() == state
    finished = [{"parameter": proposals[number], "value": 1.0 + number / 2} for number in (0, 2)]
    again.import_data([{**entry, "trialJobId": "abc"} for entry in finished])
    assert again.state_dict() == state
    assert again.generate_parameters(1) == tuner.generate_parameters(4)  # NNI's parameter ids start over, ours go on

    again.import_data([{"parameter": proposals[3], "value": 3.0}])  # it came while no tuner lived
    assert again._engine.sampler.rewards[2:] == [[proposals[3]["sample"]["op"], 3.0]]


@pytest.fixture
def four_trials(fake, monkeypatch):
    """An experiment of four trials; the space and the sampler of `fake` are found there."""
    (fake / "fake_task.py").write_text("class Space: ...\nclass Sampler: ...\n")
    (fake / "toy.py").write_text("def evaluator(): ...\n")
    (fake / "shared.pt").touch()
    monkeypatch.setattr(sys, "argv", nnis_arguments(fake, maxTrialNumber=4))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return fake


def test_the_sampler_is_told_how_far_the_search_is_and_goes_on_there_after_a_resume(four_trials):
    """Nothing told it: a schedule of its own stayed at the start."""
    tuner = started(MULTI_TRIAL)
    told = tuner._engine.sampler.told
    proposals = [tuner.generate_parameters(number) for number in range(4)]
    assert told == [0.0] * 4
    for number in (1, 0):
        tuner.receive_trial_result(number, proposals[number], 1.0)
    tuner.receive_trial_result(0, proposals[0], 1.0)  # counted already
    assert told[4:] == [0.0, 1 / 3]

    again = started(MULTI_TRIAL, resumed=True)
    told = again._engine.sampler.told
    again.import_data([{"parameter": {"sample": {"op": "3x3", "skip": True}}, "value": 4.0}])  # none of its trials
    again.generate_parameters(2)
    again.receive_trial_result(2, proposals[2], 1.0)
    again.receive_trial_result(3, proposals[3], 1.0)
    assert told == [2 / 3, 2 / 3, 2 / 3, 1.0]
    again.receive_trial_result(4, again.generate_parameters(4), 1.0)  # the user has raised the number since
    assert told[4:] == [1.0, 1.0]


def test_a_sampler_without_an_end_is_told_nothing(four_trials, monkeypatch):
    monkeypatch.setattr(sys, "argv", nnis_arguments(four_trials))
    tuner = started(MULTI_TRIAL)
    tuner.receive_trial_result(0, tuner.generate_parameters(0), 1.0)
    assert tuner._engine.sampler.told == []


def test_a_schedule_without_an_end_is_refused_in_the_words_of_check(four_trials, monkeypatch):
    scheduled = {**MULTI_TRIAL, "sampler": {"name": "enas", "entropy_weight_end": 0.0}}
    DynamicWeightTuner(**scheduled)
    monkeypatch.setattr(sys, "argv", nnis_arguments(four_trials))
    with pytest.raises(
        ConfigError, match="`entropy_weight_end` in section `tuner.classArgs.sampler` .* `maxTrialNumber`"
    ):
        DynamicWeightTuner(**scheduled)


def test_data_that_a_user_imports_counts_once(fake):
    tuner = started(MULTI_TRIAL)
    entry = {"parameter": {"sample": {"op": "3x3", "skip": True}}, "value": 4.0}
    tuner.import_data([entry, {"parameter": {"lr": 0.1}, "value": 1.0}])
    started(MULTI_TRIAL, resumed=True).import_data([entry])
    assert tuner._engine.sampler.rewards == [["3x3", 4.0]]


def test_a_tuner_killed_while_it_writes_leaves_the_state_of_before(fake, monkeypatch):
    path = fake / "state"
    write_atomically(path, b"old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


KILLED_WRITES = """
import os, random, signal, sys, time
from pathlib import Path
from nni_dynconv.files import write_atomically

path, size = Path(sys.argv[1]), 1_000_000
for number in range(1, 16):
    child = os.fork()
    while child == 0:
        write_atomically(path, bytes([number]) * size)
    while not path.exists() or path.read_bytes()[:1] != bytes([number]):
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() == bytes([number]) * size, number
"""


def test_kill_9_at_any_moment_of_a_write_leaves_a_whole_state(tmp_path):
    command = [sys.executable, "-c", KILLED_WRITES, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_what_a_killed_write_left_is_swept_up(fake):
    started(MULTI_TRIAL).generate_parameters(0)
    (fake / "dynamic_weight_tuner.state.123.tmp").touch()
    started(MULTI_TRIAL, resumed=True)
    assert [path.name for path in fake.iterdir()] == ["dynamic_weight_tuner.state"]


@pytest.mark.parametrize("settings", [MULTI_TRIAL, {**ONE_SHOT, "hyper_tuner": {"name": "TPE"}}])
def test_a_result_that_came_while_no_tuner_lived_is_learned_from_nnis_database(fake, monkeypatch, settings):
    """It used to be lost when its trial had not ended well."""
    search_space = HYPER if settings["mode"] == "one_shot" else {}
    tuner = started(settings, search_space)
    proposals = [tuner.generate_parameters(number) for number in range(3)]
    tuner.receive_trial_result(0, proposals[0], 1.0)
    reported = [{"default": 1.5, "proposal": number} for number in (0, 2, 2, 7)]
    monkeypatch.setattr(tuner_module, "reported_results", lambda folder: reported if folder == fake.parent else [])

    learned = []
    engine = MultiTrial if settings is MULTI_TRIAL else OneShot
    monkeypatch.setattr(engine, "learn", lambda self, proposed, metric, _: learned.append((proposed, metric)))
    again = started(settings, search_space, resumed=True)
    assert learned == [(tuner._proposals[2], 1.5)]
    assert again.state_dict()["results"] == {"0": 1.0, "2": 1.5}


def test_nni_is_told_when_a_call_fails_by_the_end_of_the_process():
    """NNI's dispatcher used to go on for ever without its worker thread."""
    code = (
        "import json, sys; from nni_dynconv.tuner import DynamicWeightTuner; "
        "DynamicWeightTuner(**json.loads(sys.argv[1])).update_search_space({'x': 1}); print('still here')"
    )
    environment = {"SDK_PROCESS": "dispatcher", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(ONE_SHOT)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "still here" not in done.stdout


HUGE = [1e39, -3.5e38, -1e300, "1e31"]
NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), "nan", 10**400, None, [], "high"]


@pytest.mark.parametrize("value", [*HUGE, *NO_NUMBERS])
def test_a_result_that_is_no_number_or_too_large_teaches_nothing(value, tmp_path, monkeypatch, caplog):
    """A result of -3.5e38 made ENAS's policy no numbers for good, in the saved state too; 10**400 ended the tuner."""
    import torch

    from nni_dynconv import EnasSampler

    module = types.ModuleType("real_task")
    module.Space, module.Sampler = _real_space(), EnasSampler
    monkeypatch.setitem(sys.modules, "real_task", module)
    settings = {**MULTI_TRIAL, "space": "real_task:Space", "sampler": "real_task:Sampler"}
    tuner = DynamicWeightTuner(**settings)
    tuner.update_search_space({})
    for number, result in enumerate([0.5, value, 0.4, value, 0.6]):
        parameters = tuner.generate_parameters(number)
        tuner.receive_trial_result(number, parameters, {"default": result, "proposal": parameters["proposal"]})
    state = tuner.state_dict()
    tensors = [one for one in state["sampler"].values() if isinstance(one, torch.Tensor)]
    assert all(one.isfinite().all() for one in tensors) and state["results"] == {"0": 0.5, "2": 0.4, "4": 0.6}
    assert "Result of proposal 1 is" in caplog.text and "teaches nothing" in caplog.text
    tuner.generate_parameters(5)


def _real_space():
    from spaces import OneChoice

    return OneChoice
