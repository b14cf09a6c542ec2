"""An experiment tried before it is searched: each kind of mistake is told in words, a right one in numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import wrong_experiments

from nni_dynconv.errors import DynConvError
from nni_dynconv.experiments.trying import attempt
from nni_dynconv.experiments.trying.briefly import Clock, Plan, short_options
from nni_dynconv.experiments.trying.measured import parts_of
from nni_dynconv.experiments.words import form_of, told
from nni_dynconv.settings import call_object, check_class_args

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
RIGHT = {
    "mode": "one_shot",
    "space": "wrong_experiments:Space",
    "evaluator": "wrong_experiments:evaluator",
    "context": {"name": "vector", "in_features": 5, "dim": 8},
    "base": "learned",
    "metric": "val_loss",
    "optimize_mode": "minimize",
}


def space(name):
    return {"space": f"wrong_experiments:{name}"}


def evaluator(**arguments):
    return {"evaluator_args": arguments}


WRONG = {
    "space_args": (
        {"space_args": {"widht": 8}},
        r"`space_args` are {'widht': 8}, but `wrong_experiments:Space` takes `\(width=4\)`.*Did you mean `width`\?",
    ),
    "context missing": (
        evaluator(form="plain"),
        r"The context is missing.*\n  The batch is \[float32 \(8, 1, 6, 6\), int64 \(8,\)\]",
    ),
    "context of another shape": (
        evaluator(context=7),
        r"VectorContext takes a context \(B, D\) with D = 5, but was given \(8, 7\)",
    ),
    "candidates that do not match": (
        space("MisfitSpace"),
        r"Label `body`: candidate `conv3` gives \(8, 4, 4, 4\), but `conv1` \(8, 4, 6, 6\).*return self.head",
    ),
    "a metric that nobody logs": (
        {"metric": "val_acc"},
        r"`metric` is `val_acc`, but the evaluator logs \['entropy', 'val_loss'\]",
    ),
    "a GPU that is not there": (
        evaluator(accelerator="gpu"),
        r"No supported gpu backend found!.*This machine has no GPU.*`accelerator=\"auto\"`",
    ),
    "a network that cannot be saved": (
        space("OddSpace"),
        r"The network that a search would give could not be saved",
    ),
    "no dynamic op": (
        space("StaticSpace"),
        r"StaticSpace has no dynamic op",
    ),
    "a step that raises": (
        evaluator(module="Raising"),
        r"All of 3 architectures fail.*in the evaluator's step: KeyError.*wrong_experiments.py, line \d+: `return F",
    ),
    "no validation data": (
        evaluator(validation=False),
        r"The evaluator gives no validation data, but a search needs it: its sampler learns on it.*val_dataloaders",
    ),
    "a batch of another form": (
        evaluator(form="triple"),
        r"too many values to unpack.*`x, y = batch`.*\n  The batch is \[float32 \(8, 1, 6, 6\), float32 \(8, 5\)",
    ),
    "other candidates at a second place": (
        space("TwoPlacesSpace"),
        r"Label `body` stands at two places with other candidates at each: \['conv1', 'conv3', 'skip'\] and \['conv3",
    ),
    "samples in another order": (
        space("FlippedSpace"),
        r"Samples get each other's weights.*weights-astray at `(head|body/\w+)`.*repeated",
    ),
    "a pattern that matches nothing": (
        {"per_site": {"bodi/*": {"delta": "scale"}}},
        r"`per_site` has `bodi/\*`, which matches none of the 3 sites",
    ),
    "a trainer without validation": (
        evaluator(limit_val_batches=0),
        r"`metric` is `val_loss`, but nobody logged it: the trainer ran no validation",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_words(name, tmp_path):
    changes, words = WRONG[name]
    if "gpu" in str(changes) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    settings = check_class_args({**RIGHT, **changes}, code_directory=Path(wrong_experiments.__file__).parent)
    with pytest.raises(Exception) as caught:
        attempt(settings, tmp_path)
    assert re.search(words, told(caught.value), re.DOTALL), told(caught.value)
    assert isinstance(caught.value, DynConvError)
    (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", PAGE, re.MULTILINE)
    quoted = re.findall(r"`` (.+?) ``", row)
    assert quoted and all(one in told(caught.value) for one in quoted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["random", "enas", "darts", "gdas"])
def test_of_a_right_experiment_it_is_told_what_was_measured(sampler, tmp_path):
    measured = attempt(check_class_args({**RIGHT, "sampler": sampler}), tmp_path)
    assert measured.batch == 8 and set(measured.sample) == {"body"}
    assert measured.step > 0 and measured.look > 0 and measured.memory > 2**20 and measured.multiply_adds > 0
    parts = {"search", "re-ranking", "final training"}
    assert set(measured.parts) == parts | ({"comparing"} if sampler == "random" else set())
    text = "\n".join(measured.lines())
    assert "reads back equal" in text and "multiply-adds" in text and "search" in text
    assert not list(tmp_path.iterdir())


def test_in_multi_trial_mode_the_checkpoint_and_one_trial_are_tried(tmp_path):
    multi = {"mode": "multi_trial", "checkpoint": "shared", "sampler": "enas"}
    measured = attempt(check_class_args({**RIGHT, **multi}), tmp_path)
    assert set(measured.parts) == {"the checkpoint before them", "each trial"}
    with pytest.raises(DynConvError, match="`metric` is `val_acc`, but the evaluator logs"):
        attempt(check_class_args({**RIGHT, **multi, "metric": "val_acc"}), tmp_path)


def test_without_a_metric_the_evaluator_may_have_no_validation_data_where_nothing_is_compared(tmp_path):
    changes = {"sampler": "random", "metric": None, "strategy": {"contenders": 0}, **evaluator(validation=False)}
    with pytest.raises(DynConvError, match="no validation data"):
        attempt(check_class_args({**RIGHT, **changes}), tmp_path)


def test_a_try_is_short_whatever_the_strategy_asks_for():
    short = short_options({"rerank_steps": 1000, "contenders": 1, "warmup_epochs": 7, "smoothness": 0.1})
    assert short["rerank_steps"] == 1 and short["contenders"] == 1 and short["warmup_epochs"] == 0
    assert short["smoothness"] == 0.1
    assert short_options({}, "multi_trial")["contenders"] == 0


def test_how_long_a_search_takes_follows_from_its_steps():
    clock = Clock(training=[9.0, 1.0, 1.0, 2.0], validation=[0.5], batches=(100, 20))
    plan = Plan(epochs=3, steps=-1, training=1.0, validation=10)
    strategy = {"rerank": 2, "rerank_steps": 10, "contenders": 4, "contender_batches": 2, "calibration_batches": 0}

    def parts(learns="rewards", plan=plan, clock=clock, strategy=strategy, **changes):
        return parts_of(clock, plan, check_class_args({**RIGHT, "strategy": strategy, **changes}), learns)

    whole = 3 * 100 * 1.0 + 3 * 10 * 0.5
    expected = {"search": whole, "comparing": 4 * 2 * 0.5, "re-ranking": 2 * (10 + 2), "final training": whole}
    assert parts("selection") == expected
    assert parts("gradient")["re-ranking"] == 2 * (5 + 2)
    assert parts(strategy={**strategy, "final_epochs": 0, "rerank": 0}) == {"search": whole}
    assert parts(strategy={**strategy, "final_epochs": 6})["final training"] == 2 * whole
    assert parts(strategy={**strategy, "final_search": "evolution", "evaluations": 7})["comparing"] == 7 * 2 * 0.5
    assert parts(baselines={"random": 2, "epochs": 3})["baselines"] == (1 + 2 + 1 + 1) * whole
    assert parts(plan=plan._replace(steps=50, validation=0))["search"] == 50.0
    assert parts(plan=plan._replace(training=0.5))["search"] == 150.0 + 15.0
    assert parts(plan=plan._replace(epochs=-1)) == parts(clock=Clock()) == {}


def test_a_strategy_that_evolves_and_has_objectives_is_tried_too(tmp_path):
    strategy = {"final_search": "evolution", "objectives": ["parameters"], "proxy": "synflow", "evaluations": 50}
    attempt(check_class_args({**RIGHT, "sampler": "random", "strategy": strategy}), tmp_path)


def test_a_batch_is_told_by_types_and_shapes():
    batch = {"image": torch.zeros(2, 3), "more": [torch.zeros(2).long(), "a", None]}
    assert form_of(batch) == "{'image': float32 (2, 3), 'more': [int64 (2,), str, NoneType]}"


class Plain:
    def __init__(self, size, *, depth=1):
        self.size = size


def test_arguments_of_what_a_yaml_names_are_checked_before_the_call():
    reference = f"{__name__}:Plain"
    assert call_object(reference, "space", {"size": 3}).size == 3
    with pytest.raises(DynConvError, match=r"`space_args` are {'size': 1, 'detph': 2}.*Did you mean `depth`\?"):
        call_object(reference, "space", {"size": 1, "detph": 2})
    with pytest.raises(DynConvError, match="missing a required argument: 'size'"):
        call_object(reference, "space", {})


def test_an_evaluator_that_is_none_of_nnis_is_refused(tmp_path):
    changes = {"evaluator": "wrong_experiments:_data", "evaluator_args": {"form": "plain", "context": 5}}
    with pytest.raises(DynConvError, match="gave a list, but must give an evaluator of NNI's"):
        attempt(check_class_args({**RIGHT, **changes}), tmp_path)
