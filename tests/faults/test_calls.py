"""Public calls and command lines with values that nobody means: an error of ours, or an answer; and nothing is left."""

from __future__ import annotations

import contextlib
import inspect
import io
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from spaces import OneChoice

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, VectorContext, export, functional, settings
from nni_dynconv.commands.cli import main
from nni_dynconv.errors import DynConvError
from nni_dynconv.runs import Run

SHAPES = [(1,), (2, 3), (2, 3, 8, 8), (2, 5, 8, 8), (0,), (4, 3, 3, 3), (2, 4, 3, 3, 3), (2, 3, 8), (4, 3, 3)]
JUNK = [None, 0, 1, -1, 2, 3, 1.5, float("nan"), float("inf"), "", "x", "a:b", True, [], {}, (), [1], {"a": 1}]
JUNK += [b"x", len, type, 3j, object(), *map(torch.zeros, SHAPES)]
JUNK += [torch.zeros(2, 3, 8, 8, dtype=one) for one in (torch.int64, torch.float64, torch.complex64, torch.bool)]
FUNCTIONS = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"]
FUNCTIONS += ["layer_norm"]
"""Of other norms, and of norms as layers, all but tensors and sizes goes to torch as it is, whose words it then has."""
ABSTRACT = ("DynamicOp", "DynamicNetwork", "DynamicWeightMutator", "DynamicWeightTuner")
CLASSES = [one for one in nni_dynconv.__all__ if one.endswith(("Sampler", "Controller", "Context"))]
CLASSES += [one for one in nni_dynconv.__all__ if one.startswith("Dynamic") and not one.endswith("Profiler")]


def signature_of(function):
    """Return a signature whose arguments are named; a constructor that hands them on has its base's."""
    made = inspect.isclass(function)
    owners = [vars(one)["__init__"] for one in function.__mro__ if "__init__" in vars(one)] if made else [function]
    for one in owners:
        parameters = list(inspect.signature(one).parameters.values())[made:]
        if all(parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
            return parameters
    return []


def calls():
    """Yield what is called, how many arguments it needs, and which others it takes."""
    named = {f"functional.{name}": getattr(functional, name) for name in FUNCTIONS if hasattr(functional, name)}
    for name in CLASSES:
        one = getattr(nni_dynconv, name)
        if name not in ABSTRACT and not inspect.isabstract(one):
            named[name] = one
    for name, one in named.items():
        parameters = signature_of(one)
        needed = sum(each.default is each.empty for each in parameters)
        yield name, one, needed, [] if "Norm" in name else [each.name for each in parameters[needed:]]
    mutator = DynamicWeightMutator(OneChoice(), context=VectorContext(3, 4)).eval()
    mutator.reset()
    yield "functional.explain", functional.explain, 2, ["op", "training", "rank"]
    yield "load", nni_dynconv.load, 1, ["trust"]
    yield "load_supernet", lambda folder: export.load_supernet(mutator, folder), 1, []
    yield "freeze", mutator.freeze, 1, []
    yield "using", lambda sample: mutator.using(sample).__enter__(), 1, []
    yield "check_class_args", settings.check_class_args, 1, []
    yield "Run.read", Run.read, 1, []


def attack(number, seed):
    generator, known, outcomes, foreign = random.Random(seed), list(calls()), Counter(), Counter()
    for _ in range(number):
        name, function, needed, more = generator.choice(known)
        args = [generator.choice(JUNK) for _ in range(needed)]
        options = {generator.choice(more): generator.choice(JUNK)} if more and generator.random() < 0.7 else {}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                function(*args, **options)
            outcomes["answered"] += 1
        except DynConvError:
            outcomes["refused"] += 1
        except Exception as error:
            foreign[f"{name}: {type(error).__name__}: {error}"] += 1
    assert not foreign, foreign.most_common(20)
    return outcomes


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, own_nni_folders):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_public_calls_with_values_that_nobody_means_are_refused_in_words_or_answered(elsewhere):
    outcomes = attack(400, seed=19)
    assert outcomes["refused"] > 100 and not list(elsewhere.iterdir())


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_thousands_of_public_calls(elsewhere):
    outcomes = attack(10_000, seed=1900)
    print(f"\npublic calls: {outcomes.total()}: {dict(outcomes)}, foreign errors 0")
    assert not list(elsewhere.iterdir())


# Command lines

COMMANDS = {
    "check": ["--try", "--no-try"],
    "schema": ["--json", "--output"],
    "space": ["--from", "--args", "--seed"],
    "warmup": [],
    "doctor": ["--json", "--batches", "--seed"],
    "rank": ["--json", "--architectures", "--seed", "--epochs"],
    "launch": ["--port", "--output", "--timeout", "--no-try"],
    "resume": ["--port", "--output", "--timeout"],
    "train": ["--epochs", "--config"],
    "export": ["--config"],
    "": ["--version", "--help"],
    "nothing": [],
}
VALUES = ["", "-1", "0", "1", "nan", "inf", "1e999", "9" * 400, "x", "a:b", "a:b:c", ":", ".", "..", "/", "/dev/null"]
VALUES += ["/proc/self/mem", "x" * 300, "no\x00thing", "~nobody/x", "{", "[1]", "null", "-", "--", "--help", "é", "*"]


def command_line(generator):
    command = generator.choice(list(COMMANDS))
    words = [command] if command else []
    return words + [generator.choice([*VALUES, *COMMANDS[command]]) for _ in range(generator.randint(0, 4))]


def run_all(number, seed, capsys):
    generator, statuses = random.Random(seed), Counter()
    for _ in range(number):
        words = command_line(generator)
        status = main(words)
        said = capsys.readouterr().err
        assert status in (0, 1, 2), (words, status)
        assert "NNI_DYNCONV_DEBUG" not in said and "Traceback" not in said, (words, said)
        statuses[status] += 1
    return statuses


@pytest.mark.whole
def test_command_lines_that_nobody_means_end_in_words(elsewhere, capsys):
    statuses = run_all(60, 19, capsys)
    assert statuses[2] > 20


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_thousands_of_command_lines(elsewhere, capsys):
    statuses = run_all(2000, 1900, capsys)
    with capsys.disabled():
        print(f"\ncommand lines: {statuses.total()}: by status {dict(statuses)}, foreign errors 0")
    left = {one.name for one in Path().iterdir()}
    assert left <= set(VALUES), left
