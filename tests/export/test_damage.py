"""Files that are damaged, by chance or on purpose, are refused in words; a save that fails leaves what was there."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save
from spaces import OneChoice, image
from tampering import tamper

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, export
from nni_dynconv.errors import DynConvError, ExportError

FILES = ("architecture.json", "example.npz", "network.json", "network.safetensors")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    torch.manual_seed(0)
    export.save(DynamicWeightMutator(OneChoice()).eval().freeze({"op": "3x3"}), folder, example=image())
    return {name: (folder / name).read_bytes() for name in FILES}


def put(written, folder):
    folder.mkdir(exist_ok=True)
    for name, content in written.items():
        (folder / name).write_bytes(content)
    return folder


def test_no_flipped_bit_and_no_cut_is_believed(written, tmp_path):
    generator, folder = random.Random(0), put(written, tmp_path / "net")
    for number in range(300):
        name = FILES[number % len(FILES)]
        data = bytearray(written[name])
        place = generator.randrange(len(data))
        if number % 10 == 9:
            del data[place:]
        else:
            data[place] ^= 1 << generator.randrange(8)
        (folder / name).write_bytes(bytes(data))
        with pytest.raises(DynConvError, match="There is no network that can be read"):
            nni_dynconv.load(folder)
        (folder / name).write_bytes(written[name])
    nni_dynconv.load(folder)


def test_a_save_that_is_cut_off_after_it_counts_is_finished_by_the_reader(written, tmp_path, monkeypatch):
    """Killed between the description and the tensors: both are new, under the names that they waited by."""
    folder, other = put(written, tmp_path / "net"), DynamicWeightMutator(OneChoice()).eval().freeze({"op": "5x5"})
    replace = type(folder).replace

    def killed(path, target):
        if str(target).endswith(".safetensors") or str(target).endswith("architecture.json"):
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(folder), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export.save(other, folder, example=image())
    monkeypatch.undo()
    loaded = nni_dynconv.load(folder)
    assert loaded.architecture == {"op": "5x5"}
    torch.testing.assert_close(loaded(image()), other(image()))


def test_what_killed_saves_left_is_removed_by_the_next_one(written, tmp_path):
    """Their files used to stay for ever."""
    folder, network = put(written, tmp_path / "net"), DynamicWeightMutator(OneChoice()).eval().freeze({"op": "5x5"})
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone, lives = done.stdout.strip(), os.getppid()
    left = [folder / f"{name}.{gone}.tmp" for name in ("network.json", f"network.safetensors.{'a' * 16}")]
    kept = [folder / f"network.safetensors.{'b' * 16}.{lives}.tmp", folder / "notes.tmp"]
    for path in (*left, *kept):
        path.touch()
    export.save(network, folder, example=image())
    assert [path.exists() for path in (*left, *kept)] == [False, False, True, True]


def other_shape(told):
    told["sites"][0]["specs"][0]["shape"][0] += 1


def other_layer(told):
    next(iter(told["network"]["layers"].values()))["args"]["in_channels"] = 64


def no_site(told):
    told["ops"] = dict.fromkeys(told["ops"], "nowhere")


def other_class(told):
    next(iter(told["network"]["layers"].values()))["class"] = "subprocess:Popen"


@pytest.mark.parametrize("change", [other_shape, other_layer, no_site, other_class])
def test_what_does_not_fit_together_is_refused_with_right_checksums_too(change, written, tmp_path):
    folder = put(written, tmp_path / "net")
    tamper(folder, change)
    with pytest.raises(ExportError, match="There is no network that can be read"):
        nni_dynconv.load(folder)


def test_tensors_of_another_shape_or_type_or_too_many_are_refused(written, tmp_path):
    folder = put(written, tmp_path / "net")
    tensors = load_file(folder / "network.safetensors")
    name = next(name for name, one in tensors.items() if one.is_floating_point())
    for changed in ({name: tensors[name][:-1]}, {name: tensors[name].long()}, {"network.more": torch.zeros(1)}):
        tamper(put(written, folder), tensors=save({**tensors, **changed}))
        with pytest.raises(ExportError, match="There is no network that can be read"):
            nni_dynconv.load(folder)


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_modes_follow_the_umask_and_nothing_else_is_changed(written, tmp_path):
    before, state = os.umask(0o027), torch.random.get_rng_state()
    try:
        export.save(nni_dynconv.load(put(written, tmp_path / "net")), tmp_path / "again", example=image())
        nni_dynconv.load(tmp_path / "again")
    finally:
        os.umask(before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted([*FILES, "README.md"])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "again").iterdir()} == {0o640}
