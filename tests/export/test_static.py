"""One context as ordinary layers of torch: as a module, and as Python that imports torch alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from own_search import Waves
from spaces import CellSpace, Everything, OneChoice, image, vector
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import ModelSpace

import nni_dynconv
from nni_dynconv import (
    DynamicWeightMutator,
    OwnInputContext,
    PatchContext,
    RandomSampler,
    VectorContext,
    export,
    lift,
)
from nni_dynconv.errors import ContextError, ExportError
from nni_dynconv.export.elsewhere.static.source import source_of
from nni_dynconv.ops import DynamicConv2d, DynamicGroupNorm, DynamicOp, DynamicPatchConv2d

NOWHERE = (
    "import sys, torch; sys.modules.update(dict.fromkeys(('nni_dynconv', 'nni', 'safetensors', 'spaces'))); "
    "sys.path.insert(0, sys.argv[1]); from network import load; network = load().double(); "
    "x = torch.ones(*map(int, sys.argv[2].split(','))).double(); print(network(x).tolist())"
)


def frozen_of(space, sample=None, encoder=None, **settings):
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if encoder is None else encoder
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=encoder, **settings).eval()
    return mutator.freeze(mutator.reset() if sample is None else sample)


def shown_of(network, folder, *inputs):
    export.save(network, folder, example=inputs)
    return export.example_in(folder)


def kinds_of(network):
    return {type(one) for one in network.modules() if any(True for _ in one.parameters(recurse=False))}


# As a module


@pytest.mark.parametrize("space", [Everything, CellSpace])
def test_a_users_space_is_its_own_class_with_torchs_layers(space):
    network = frozen_of(space, base="learned").double()
    plain = export.make_static(network, vector(1).double())
    assert type(plain) is type(network.network) and all(
        one.__module__.startswith("torch.nn") for one in kinds_of(plain)
    )
    assert not any(isinstance(one, DynamicOp) for one in plain.modules())
    for samples in (1, 3, 17):
        x = image(samples).double()
        torch.testing.assert_close(plain(x), network(x, vector(1).double()), rtol=1e-12, atol=1e-12)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.InstanceNorm2d(8, affine=True),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.LayerNorm(4 * 36),
        nn.Linear(4 * 36, 3),
    )


def lifted_of(network):
    mutator = lift(network, where=[*{type(one) for one in network}]).mutator(context=VectorContext(5, 8)).eval()
    with torch.no_grad():
        mutator.source.factors.fill_(0.3)
    return mutator.freeze({})


def test_the_weights_of_a_lifted_network_fit_the_network_that_was_lifted(tmp_path):
    network = lifted_of(convolutional())
    export.export_static(network, tmp_path / "static", shown_of(network, tmp_path, image(4), vector(4)), vector(2)[1])
    original = convolutional().eval()
    original.load_state_dict(torch.load(tmp_path / "static" / "network.pt", weights_only=True))
    torch.testing.assert_close(original(image(3)), network(image(3), vector(2)[1]), rtol=1e-5, atol=1e-6)


def test_what_stands_there_learns_as_any_network():
    network = frozen_of(Everything, base="learned")
    plain, x = export.make_static(network, vector(1)).train(), image(8)
    before = {name: one.detach().clone() for name, one in plain.named_parameters()}
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = plain(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert all(not torch.equal(one, before[name]) for name, one in plain.named_parameters() if one.grad is not None)


def test_an_op_that_stands_at_two_places_is_one_layer():
    class Twice(ModelSpace):
        def __init__(self):
            super().__init__()
            self.first = DynamicConv2d(1, 1, 3, padding=1)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    network = frozen_of(Twice, {})
    plain = export.make_static(network, vector(1))
    assert plain.first is plain.second and type(plain.first) is nn.Conv2d
    torch.testing.assert_close(plain(image(2)), network(image(2), vector(1)))


# As Python


@pytest.mark.whole  # it starts Python anew
def test_it_is_read_where_neither_this_package_nor_nni_nor_the_class_is(tmp_path):
    network = frozen_of(Everything, base="learned")
    found = export.export_static(network, tmp_path / "static", shown_of(network, tmp_path, image(4), vector(4)))
    assert found.error < 1e-6 and found.batches == (1, 3, 17) and found.form == "static"
    written = sorted(one.name for one in (tmp_path / "static").iterdir())
    assert written == ["network.pt", "network.py", "network.py.json"]
    command = [sys.executable, "-c", NOWHERE, str(tmp_path / "static"), "2,1,6,6"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    wanted = network.double()(torch.ones(2, 1, 6, 6).double(), vector(4)[:1].double())
    torch.testing.assert_close(torch.tensor(json.loads(told)).double(), wanted, rtol=1e-6, atol=1e-6)


Parts = namedtuple("Parts", ["sum", "same"])


class Wide(ModelSpace):
    """Takes a pair and a switch, asks for its mode and for sizes, ties a weight, keeps one, returns what has names."""

    def __init__(self):
        super().__init__()
        self.conv = DynamicConv2d(2, 4, 3, padding=1)
        self.norm = DynamicGroupNorm(2, 4)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.kept = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("added", torch.full((4,), 0.5), persistent=False)

    def forward(self, pair, twice=False):
        x = self.norm(self.conv(torch.cat(pair, 1))).mean((2, 3))
        with torch.no_grad():
            scale = x.abs().amax() + 1
        x = F.dropout(x, 0.5, self.training) / scale * self.kept + self.added
        x = self.other(self.one(x)) * (2 if twice else 1)
        return {"all": [Parts(x.sum(1), x), (x[:, :2],)], "last": x}


def example(batch):
    return (image(batch), image(batch, 1))


def test_forms_of_inputs_and_outputs_modes_ties_and_what_does_not_learn_are_kept(tmp_path):
    network = frozen_of(Wide, {})
    shown = shown_of(network, tmp_path, example(4), vector(4))
    assert export.export_static(network, tmp_path, shown).error < 1e-6
    again = read(tmp_path)
    found, wanted = again(example(3)), network(example(3), vector(4)[:1])
    assert found["all"][0]._fields == ("sum", "same") and list(found) == ["all", "last"]
    torch.testing.assert_close(found["all"][0].same, wanted["last"])
    assert again.other.weight is again.one.weight
    assert [name for name, one in again.named_parameters() if not one.requires_grad] == ["kept"]
    assert not torch.equal(again.train()(example(3))["last"], again(example(3))["last"])  # its dropout
    with pytest.raises(ValueError, match="`twice` was False when the network was written, and cannot be True"):
        again(example(3), twice=True)
    with pytest.raises(ValueError, match=r"A tensor of sizes \(None, 1, None, None\) is known"):
        again((torch.ones(2, 2, 6, 6), torch.ones(2, 1, 6, 6)))


def read(folder):
    spec = importlib.util.spec_from_file_location("written", folder / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def test_a_network_that_was_loaded_is_written_too(tmp_path):
    network = frozen_of(Waves)
    shown = shown_of(network, tmp_path, torch.randn(4, 1, 16), vector(4))
    export.export_static(nni_dynconv.load(tmp_path), tmp_path / "static", shown)
    assert "nni_dynconv" not in (tmp_path / "static" / "network.py").read_text()
    x = torch.randn(3, 1, 16)
    torch.testing.assert_close(read(tmp_path / "static")(x), network(x, shown.call.context[:1]))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "A'''\nimport os"},
        {"layers": {"a'); import os; ('": {"class": "torch.nn.modules.linear:Identity", "args": {}}}},
        {"layers": {"a": {"class": "os:system", "args": {}}}},
        {"signature": [["x, y=print()", "POSITIONAL_OR_KEYWORD", None]]},
    ],
)
def test_a_description_puts_no_code_of_its_own_into_what_is_written(change):
    mode = {"steps": [{"layer": path, "args": [], "sizes": []} for path in change.get("layers", ())], "sizes": []}
    description = {"name": "A", "layers": {}, "tensors": {}, "ties": {}, "signature": [], "inputs": {}}
    with pytest.raises(ExportError):
        source_of({**description, "modes": {"eval": {**mode, "output": None}}, **change})


# What is no ordinary layer


class Patches(ModelSpace):
    def __init__(self):
        super().__init__()
        self.conv = DynamicPatchConv2d(1, 2, 3, grid=2, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_weights_that_vary_over_the_image_are_refused_by_name():
    network = frozen_of(Patches, {}, PatchContext(3, 8, grid=2))
    with pytest.raises(ExportError, match=r"Site `conv` is no ordinary layer: .* each patch .*--to pt2 --form baked"):
        export.make_static(network, torch.randn(1, 3, 6, 6))
    plain = export.make_static(frozen_of(Patches, {}), vector(1))  # patches of a sample share its weights
    assert type(plain.conv) is nn.Conv2d


class Doubled(DynamicConv2d):
    def compute(self, x, weights, counts=None):
        return 2 * super().compute(x, weights, counts)


class Own(ModelSpace):
    def __init__(self):
        super().__init__()
        self.conv = Doubled(1, 2, 3)

    def forward(self, x):
        return self.conv(x)


def test_an_op_of_ones_own_says_what_layer_it_is_or_is_refused():
    """One that computes something else inherits no layer, which would be wrong."""
    with pytest.raises(ExportError, match="`conv` is a Doubled, which does not say what ordinary layer it is"):
        export.make_static(frozen_of(Own, {}), vector(1))


def test_weights_of_an_own_input_and_several_contexts_are_refused():
    with pytest.raises(ContextError, match="cannot be made beforehand"):
        export.make_static(frozen_of(OneChoice, {"op": "3x3"}, OwnInputContext(8)))
    with pytest.raises(ContextError, match="one context, but 3 were given"):
        export.make_static(frozen_of(OneChoice, {"op": "3x3"}), vector(3))


def test_hooks_are_not_lost_without_a_word():
    network = frozen_of(OneChoice, {"op": "3x3"})
    network.network.op.register_forward_hook(lambda *_: None)
    with pytest.raises(ExportError, match="Site `op/3x3` has hooks, which would be lost"):
        export.make_static(network, vector(1))


def test_a_layer_that_torch_does_not_have_is_refused():
    class Strided(ModelSpace):
        def __init__(self):
            super().__init__()
            self.conv = DynamicConv2d(1, 2, 3, stride=2, padding="same", padding_mode="reflect")

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(ExportError, match="Site `conv` is no ordinary layer: torch's does not take what DynamicConv2d"):
        export.make_static(frozen_of(Strided, {}), vector(1))


class ByValue(ModelSpace):
    def __init__(self):
        super().__init__()
        self.conv = DynamicConv2d(1, 2, 3)

    def forward(self, x):
        return self.conv(x) if float(x.sum()) > 0 else -self.conv(x)


@pytest.mark.filterwarnings("ignore:It is saved by its class")
def test_a_network_that_decides_by_values_is_a_module_only(tmp_path):
    network = frozen_of(ByValue, {})
    shown = shown_of(network, tmp_path, image(4), vector(4))
    with pytest.raises(ExportError, match=r"cannot be written as Python: .* there is still `export.make_static"):
        export.export_static(network, tmp_path / "static", shown)
    assert not (tmp_path / "static").exists()
    x = image(2)
    torch.testing.assert_close(export.make_static(network, vector(1))(x), network(x, vector(1)))
