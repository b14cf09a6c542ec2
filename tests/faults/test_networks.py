"""Files of networks and supernets: flipped, cut, and changed by somebody who makes the checksums right again."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from typing import NamedTuple

import psutil
import pytest
import torch
from faults.inputs import mutated_description
from spaces import OneChoice, image
from tampering import tamper

import nni_dynconv
from nni_dynconv import ChunkedController, DynamicWeightMutator, OwnInputContext, VectorContext, export, lift
from nni_dynconv.errors import DynConvError
from nni_dynconv.experiments.state import read_state, write_state
from nni_dynconv.export import folder as folders
from nni_dynconv.export.card import CARD


class Made(NamedTuple):
    """A network on disk, what it is called with, and what it gives."""

    files: dict[str, bytes]
    given: tuple
    gives: torch.Tensor


def _frozen(mutator, sample=None):
    return mutator.eval().freeze(sample) if sample else _drawn(mutator.eval())


def _drawn(mutator):
    mutator.reset()
    return mutator.freeze().eval()


def _networks():
    x, c = image(), torch.randn(len(image()), 3)
    yield _frozen(DynamicWeightMutator(OneChoice()), {"op": "3x3"}), (x,)
    with_context = DynamicWeightMutator(OneChoice(), context=VectorContext(3, 4), base="learned")
    yield _frozen(with_context, {"op": "5x5"}), (x, c)
    own = DynamicWeightMutator(OneChoice(), controller=ChunkedController(hidden=8), context=OwnInputContext(4))
    yield _frozen(own, {"op": "3x3"}), (x,)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten())
    lifted = lift(torch.nn.Sequential(*plain, torch.nn.Linear(144, 5))).mutator(context=VectorContext(3, 4))
    yield _frozen(lifted), (torch.randn(2, 3, 8, 8), torch.randn(2, 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    found = []
    for number, (network, given) in enumerate(_networks()):
        place = tmp_path_factory.mktemp(f"net{number}")
        with torch.no_grad():
            gives = network(*given)
        export.save(network, place)
        found.append(Made({one.name: one.read_bytes() for one in place.iterdir() if one.name != CARD}, given, gives))
    return found


TIMES = int(os.environ.get("TIMES", "5000"))
SLOW = 5.0
"""Seconds of this process after which a file is said to hang."""


def put(files, place):
    place.mkdir(exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)


def ended(place, one):
    """Load and run what lies there: how it ended, where nothing but an error of ours is one."""
    try:
        network = nni_dynconv.load(place)
    except DynConvError:
        return "refused"
    try:
        with torch.no_grad():
            gives = network(*one.given)
    except DynConvError:
        return "refused when run"
    except MemoryError:
        return "no memory"
    same = isinstance(gives, torch.Tensor) and gives.shape == one.gives.shape and torch.allclose(gives, one.gives)
    return "the same" if same else "another network"


@pytest.fixture(autouse=True)
def bounded():
    """A changed network may be one that takes all memory where it is run; here it gets 3 GiB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 3 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def trap(tmp_path_factory, monkeypatch):
    """A module that leaves a file where it is imported."""
    place = tmp_path_factory.mktemp("trap")
    (place / "trap_module.py").write_text(f"import pathlib\npathlib.Path({str(place)!r}, 'sprung').touch()\n")
    monkeypatch.syspath_prepend(place)
    return place / "sprung"


def attack(made, place, number, seed, trap):
    """Change files, load and run them: how often each came out; no file is written, and no code is run."""
    generator, outcomes = random.Random(seed), Counter()
    for count in range(number):
        one = made[count % len(made)]
        put(one.files, place)

        def change(description):
            changed = mutated_description(description, generator)
            description.clear()
            description.update(changed)

        try:
            tamper(place, change)
        except (KeyError, TypeError, ValueError, AttributeError, UnicodeError):
            continue  # what it made is no file at all
        before = time.process_time()
        outcomes[ended(place, one)] += 1
        outcomes["slow"] += time.process_time() - before > SLOW
        assert {path.name for path in place.parent.iterdir()} == {place.name}
        assert {path.name for path in place.iterdir()} == set(one.files)
    assert "trap_module" not in sys.modules and not trap.exists()
    return outcomes


@pytest.mark.whole
def test_what_somebody_changes_who_knows_the_checksums_is_refused_in_words_or_another_network(made, tmp_path, trap):
    """76 of 1,200 used to fail only when they were run, with errors of torch."""
    outcomes = attack(made, tmp_path / "net", 120, 19, trap)
    assert outcomes["refused"] > 60


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_thousands_of_changed_network_files(made, tmp_path, trap):
    outcomes = attack(made, tmp_path / "net", TIMES, 1900, trap)
    print(f"\nchanged network files with right checksums: {outcomes.total() - outcomes['slow']}: {dict(outcomes)}")


@pytest.mark.slow
def test_a_size_in_a_file_does_not_take_all_memory(made, tmp_path):
    """It used to make a tensor of that size, and the machine with it slow for minutes."""
    put(made[1].files, tmp_path / "net")

    def change(description):
        description["controller"]["args"]["hidden"] = 2**20

    tamper(tmp_path / "net", change)
    with pytest.raises(DynConvError, match=r"It describes a tensor of .*, of which its file has no room"):
        nni_dynconv.load(tmp_path / "net")


@pytest.mark.whole
@pytest.mark.parametrize("many", [10**6, 10**9])
def test_a_number_of_layers_in_a_file_does_not_take_all_time(many, made, tmp_path):
    """A million layers of an LSTM, whose making goes by the square of their number, took minutes to be refused."""
    put(made[3].files, tmp_path / "net")

    def change(description):
        arguments = {"input_size": 4, "hidden_size": 4, "num_layers": many}
        assert description["network"]["layers"]["1"]["class"].endswith("BatchNorm2d")
        description["network"]["layers"]["1"] = {"class": "torch.nn.modules.rnn:LSTM", "args": arguments}

    tamper(tmp_path / "net", change)
    with pytest.raises(DynConvError, match=r"It describes layers that take more than \d+ operators to be made"):
        nni_dynconv.load(tmp_path / "net")


# Bits, and cuts


def _kinds(made, place):
    """Yield each kind of files: what is in it, how it is read, and what it tells."""
    for number, one in enumerate(made):
        yield f"network {number}", one.files, lambda where: nni_dynconv.load(where)
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(OneChoice(), base="learned")
    export.save_supernet(mutator, place / "supernet")
    files = {one.name: one.read_bytes() for one in (place / "supernet").iterdir()}
    yield "supernet", files, lambda where: export.load_supernet(mutator, where)
    write_state(place / "a.state", b'{"proposals": {}, "results": {"0": 0.5}}')
    files = {"a.state": (place / "a.state").read_bytes()}
    yield "tuner state", files, lambda where: read_state(where / "a.state", lambda raw: raw, print)


def damage(made, place, number, seed):
    """Flip a bit or cut a file, so many times over all kinds; return how many were tried and how many believed."""
    generator, tried, believed = random.Random(seed), Counter(), Counter()
    kinds = list(_kinds(made, place))
    for count in range(number):
        kind, files, read = kinds[count % len(kinds)]
        name = generator.choice(sorted(files))
        data = bytearray(files[name])
        where = generator.randrange(len(data))
        if generator.randrange(5) == 0:
            del data[where:]
        else:
            data[where] ^= 1 << generator.randrange(8)
        put({**files, name: bytes(data)}, place / "damaged")
        tried[kind] += 1
        try:
            read(place / "damaged")
        except DynConvError:
            continue
        finally:
            for one in (place / "damaged").iterdir():
                one.unlink()
        believed[kind] += 1
    return tried, believed


def test_no_flipped_bit_and_no_cut_is_believed_in_any_kind_of_file(made, tmp_path):
    """97 of 99 used to be."""
    tried, believed = damage(made, tmp_path, 150, seed=19)
    assert tried.total() == 150 and not believed


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_thousands_of_flipped_bits_and_cuts(made, tmp_path):
    tried, believed = damage(made, tmp_path, TIMES, seed=1900)
    print(f"\nflipped bits and cuts: {tried.total()}: {dict(tried)}, believed {believed.total()}")
    assert not believed


def test_a_newer_version_is_told_so(made, tmp_path, monkeypatch):
    put(made[0].files, tmp_path / "net")
    monkeypatch.setattr(folders, "check_format", lambda written: None)
    tamper(tmp_path / "net", lambda description: description.update(format=99))
    monkeypatch.undo()
    with pytest.raises(DynConvError, match="It was written by a newer version: update nni_dynconv"):
        nni_dynconv.load(tmp_path / "net")
