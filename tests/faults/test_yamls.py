"""Mutated YAMLs: each is refused in this package's words, or is an experiment; soon, and nothing is written or run."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from faults.inputs import LAUGHS, TEXTS, document_of, mutated_yaml

from nni_dynconv.errors import DynConvError
from nni_dynconv.settings import check_config, load_yaml

REPOSITORY = Path(__file__).parents[2]
CONFIGS = [REPOSITORY / "configs" / name for name in ("one_shot.yml", "multi_trial.yml")]
SLOW = 5.0
"""Seconds of this process after which a YAML is said to hang."""


@pytest.fixture
def mutate(tmp_path, own_nni_folders):
    """Check so many mutated YAMLs, and return how they ended."""
    documents = [document_of(one) for one in CONFIGS]
    for one in documents:
        one["trialCodeDirectory"] = str((CONFIGS[0].parent / one["trialCodeDirectory"]).resolve())

    def run(number, seed):
        generator, ended, path = random.Random(seed), Counter(), tmp_path / "x.yml"
        for count in range(number):
            path.write_bytes(mutated_yaml(documents[count % len(documents)], generator))
            began = time.process_time()
            try:
                check_config(path, checkpoint_needed=False)
                ended["taken"] += 1
            except DynConvError as error:
                ended["refused" if len(str(error)) < 10_000 else "at length"] += 1
            except Exception as error:
                (REPOSITORY / "runs").mkdir(exist_ok=True)
                (REPOSITORY / "runs" / f"mutant-{seed}-{count}.yml").write_bytes(path.read_bytes())
                raise AssertionError(f"YAML {count} of seed {seed}: {type(error).__name__}: {error}") from error
            ended["slow"] += time.process_time() - began > SLOW
        return ended

    return run


@pytest.mark.whole
def test_a_few_hundred_mutated_yamls_are_refused_in_words_or_taken(mutate):
    """273 of 2,027 used to give errors of libraries."""
    ended = mutate(150, seed=19)
    assert ended["refused"] > 50 and ended["taken"] > 5


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_thousands_of_mutated_yamls(mutate):
    ended = mutate(5000, seed=1900)
    print(f"\nmutated YAMLs: {ended.total() - ended['slow']}: {dict(ended)}, foreign errors 0")
    assert not ended["at length"]


@pytest.mark.parametrize("text", [LAUGHS, *TEXTS], ids=lambda one: ascii(one[:20]))
def test_each_trap_is_refused_in_words(text, tmp_path):
    (tmp_path / "x.yml").write_bytes(b"x: " + text)
    with pytest.raises(DynConvError, match="x.yml"):
        load_yaml(tmp_path / "x.yml")


WRONG = {
    "a: 1\nb: {c: 1, c: 2}": "`c` stands twice in one mapping of .*, lines 2 and 2",
    "a: 2020-01-01": r"`a` in .* is datetime.date\(2020, 1, 1\) \(date\), which NNI cannot pass on. Put it in quotes",
    "a: {b: [.inf]}": r"`a.b\[0\]` in .* is inf, but must be a finite number",
    "a: 9007199254740993": "`a` in .* is too large a number",
    "1: a": r"`1` in .* is named 1 \(int\): names are strings",
    "- a": r"is \['a'\] \(list\), but must be a mapping",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_json_cannot_tell_is_refused(text, tmp_path):
    """NNI used to pass on another value, without a word, or to die of it."""
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(DynConvError, match=WRONG[text]):
        load_yaml(tmp_path / "x.yml")


def test_what_is_said_once_and_used_twice_is_still_read(tmp_path):
    (tmp_path / "x.yml").write_text("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\ne: *a\n")
    assert load_yaml(tmp_path / "x.yml") == {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 2}}


def test_other_encodings_are_told_with_their_line(tmp_path):
    (tmp_path / "x.yml").write_bytes("a: 1\nb: café".encode("latin-1"))
    with pytest.raises(DynConvError, match="is not in UTF-8: .* in line 2. Save it as UTF-8"):
        load_yaml(tmp_path / "x.yml")
