"""What was written in format 3 gives what it gave: signs, codes and sizes are those of then."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nni_dynconv
from nni_dynconv import export

FILES = Path(__file__).parents[1] / "fixtures" / "format_3"
NAMES = ("chunked", "low_rank", "coordinate", "experts")


@pytest.fixture
def make(monkeypatch):
    """The module that wrote the files."""
    monkeypatch.syspath_prepend(str(FILES))
    yield importlib.import_module("make")
    sys.modules.pop("make", None)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_what_it_gave_also_when_it_is_saved_anew(name, make, tmp_path):
    network, y = nni_dynconv.load(FILES / name), load_file(FILES / name / "example.safetensors")["y"]
    context = make.MAKERS[name][2]
    torch.testing.assert_close(network(make.IMAGE, context), y, rtol=1e-3, atol=1e-4)
    export.save(network, tmp_path)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(make.IMAGE, context), y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_supernet_comes_back_and_so_does_its_state(name, make):
    y = load_file(FILES / name / "example.safetensors")["y"]
    mutator, context = make.mutator_of(name)
    for parameter in mutator.space.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    export.load_supernet(mutator, FILES / name)
    network = mutator.freeze({"op": "conv"}).eval()
    torch.testing.assert_close(network(make.IMAGE, context), y, rtol=1e-3, atol=1e-4)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    again = mutator.freeze({"op": "conv"}).eval()
    again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    torch.testing.assert_close(again(make.IMAGE, context), y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_supernet_that_is_saved_anew_comes_back_in_another_mutator(name, make, tmp_path):
    """It was refused: its fans are those of then where a stride divides no kernel, and a new mutator has today's."""
    y = load_file(FILES / name / "example.safetensors")["y"]
    (old, context), (new, _) = make.mutator_of(name), make.mutator_of(name)
    expected = new.freeze({"op": "conv"}).eval()(make.IMAGE, context)
    export.save_supernet(new, tmp_path / "today")
    export.load_supernet(old, FILES / name)
    export.save_supernet(old, tmp_path / "anew")
    export.load_supernet(new, tmp_path / "anew")
    torch.testing.assert_close(new.freeze({"op": "conv"}).eval()(make.IMAGE, context), y, rtol=1e-3, atol=1e-4)
    export.load_supernet(old, tmp_path / "today")
    torch.testing.assert_close(old.freeze({"op": "conv"}).eval()(make.IMAGE, context), expected)
