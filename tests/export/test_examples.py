"""The example and the card beside a saved network: what goes in and comes out, and that a load checks it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from spaces import OneChoice, image
from tampering import tamper

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, VectorContext, export
from nni_dynconv.errors import ExportError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    torch.manual_seed(0)
    network = DynamicWeightMutator(OneChoice(), context=VectorContext(4, dim=8)).eval().freeze({"op": "3x3"})
    export.save(network, folder, example=(image(5), torch.randn(5, 4)), results={"val_acc": 0.5})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


def test_the_example_is_what_the_network_was_called_with_and_what_it_made_of_that(folder):
    shown, network = export.example_in(folder), nni_dynconv.load(folder)
    x, context = shown.call.args[0], shown.call.context
    assert x.shape[0] == context.shape[0] == 5 and shown.real
    torch.testing.assert_close(network(x, context), shown.outputs["output"])


def test_the_signature_names_shapes_types_and_ranges(folder):
    shown = export.example_in(folder)
    ports = {one.name: one for one in (*shown.inputs, *shown.made)}
    assert set(ports) == {"x", "context", "output"}
    assert ports["context"].shape == ("B", 4) and ports["context"].dtype == "float32"
    values = shown.call.context
    assert ports["context"].least == float(values.min()) and ports["context"].most == float(values.max())


def test_arrays_are_read_by_numpy_alone(folder):
    with np.load(folder / "example.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["context", "output", "x"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("shape", ["B", 9], "not what its signature says"),
        ("most", 1e9, "not what its signature says"),
        ("name", "other", "its signature names"),
        ("dtype", "Tensor", "unknown dtype"),
    ],
)
def test_an_example_that_is_not_as_its_signature_says_is_refused(folder, key, value, words):
    def change(told):
        told["example"]["inputs"][1][key] = value

    tamper(folder, change)
    with pytest.raises(ExportError, match=words):
        nni_dynconv.load(folder)


def test_a_loaded_network_is_saved_again_without_being_called(folder, tmp_path):
    """It used to be refused: there was nothing to try it on."""
    export.save(nni_dynconv.load(folder), tmp_path / "again")
    assert torch.equal(export.example_in(tmp_path / "again").call.context, export.example_in(folder).call.context)


def test_many_or_large_samples_are_shown_by_few(tmp_path):
    network = DynamicWeightMutator(OneChoice()).eval().freeze({"op": "3x3"})
    export.save(network, tmp_path, example=image(200))
    assert export.example_in(tmp_path).call.args[0].shape[0] == 16


def test_the_card_has_front_matter_and_tells_how_the_network_is_called(folder):
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["library_name"] == "nni_dynconv" and head["architecture"] == {"op": "3x3"}
    assert head["results"] == {"val_acc": 0.5}
    assert head["parameters"] == sum(one.numel() for one in nni_dynconv.load(folder).parameters())
    assert "network(x, context)" in body and "| in | `context` | B 4 | float32 |" in body


def test_a_readme_of_ones_own_stays(folder):
    (folder / "README.md").write_text("mine\n")
    export.save(nni_dynconv.load(folder), folder)
    assert (folder / "README.md").read_text() == "mine\n"


def test_a_network_of_before_has_no_example():
    assert export.example_in(Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "chunked") is None
