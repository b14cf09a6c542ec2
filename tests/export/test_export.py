"""Saved networks come back without NNI and without their class; supernets come back into the same space only."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from often import each_once
from safetensors.torch import load_file, save, save_file
from spaces import CellSpace, Everything, OneChoice, PlainCellSpace, conv, image, vector
from tampering import tamper
from torch import nn

import nni_dynconv
from nni_dynconv import (
    ArchitectureEncoder,
    ChunkedController,
    CoordinateController,
    DynamicWeightMutator,
    ExpertsController,
    FeatureMapContext,
    FlatController,
    LowRankController,
    OwnInputContext,
    RandomSampler,
    SequenceContext,
    VectorContext,
    export,
    ops,
)
from nni_dynconv.errors import DynConvError, ExportError
from nni_dynconv.ops import DynamicOp


class OwnEncoder(nn.Module):
    """What a user writes: layers, a function, a shape."""

    out_dim = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 6)
        self.shift = nn.Parameter(torch.randn(6))

    def forward(self, context):
        return torch.tanh(self.layer(context)) + self.shift / context.shape[1]


def frozen(space=OneChoice, encoder=None, base="none", context=None, **choices):
    """A network that has been called, so that it can be tried when it is saved."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(seed=0), context=encoder, base=base).eval()
    network = mutator.freeze({**mutator.reset(), **choices})
    network(image(), context)
    return network


CONTEXTS = [
    (lambda: None, None),
    (lambda: VectorContext(5, 8), vector()),
    (lambda: FeatureMapContext(2, 8), torch.randn(3, 2, 8, 8)),
    (lambda: SequenceContext(5, 8), torch.randn(3, 4, 5)),
    (OwnEncoder, vector()),
]


@each_once(encoded=CONTEXTS, space=[OneChoice, Everything, CellSpace, PlainCellSpace])
def test_a_network_comes_back_as_it_was(encoded, space, tmp_path):
    encoder, context = encoded
    network = frozen(space, encoder(), base="learned", context=context)
    export.save(network, tmp_path)
    again = nni_dynconv.load(tmp_path)
    assert again.architecture == network.architecture and not again.training
    for batch in (3, 1):
        given = None if context is None else context[:batch]
        torch.testing.assert_close(again(image(batch), given), network(image(batch), given))


class EveryOp(ModelSpace):
    """Each kind of op once, two of them with a chosen argument."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [2, 4])
        self.plane = nn.Sequential(
            ops.DynamicConv2d(1, width, 3, padding="same", padding_mode="circular"),
            ops.DynamicConvTranspose2d(width, 4, 2, stride=2),
            ops.DynamicBatchNorm2d(4),
            ops.DynamicInstanceNorm2d(4),
        )
        self.line = nn.Sequential(
            ops.DynamicConv1d(4, 4, 3, groups=4), ops.DynamicConvTranspose1d(4, 4, 3), ops.DynamicGroupNorm(2, 4)
        )
        self.volume = nn.Sequential(ops.DynamicConv3d(1, 2, 2), ops.DynamicConvTranspose3d(2, 1, 2))
        self.head = nn.Sequential(ops.DynamicLayerNorm(4), ops.DynamicLinear(4, 2))

    def forward(self, x):
        y = self.plane(x).flatten(2)
        y = self.line(y).unsqueeze(1).unsqueeze(-1).expand(-1, -1, -1, -1, 2)
        return self.head(self.volume(y).mean((1, 3, 4)))


@pytest.mark.whole
@pytest.mark.parametrize("width", [2, 4])
def test_every_op_comes_back(width, tmp_path):
    network = frozen(EveryOp, VectorContext(5, 8), context=vector(), width=width)
    export.save(network, tmp_path)
    again = nni_dynconv.load(tmp_path)
    for context in (vector(), vector(1)):
        torch.testing.assert_close(again(image(), context), network(image(), context))


class Ramp(OneChoice):
    """Makes a tensor of its own in a type that its forward names."""

    def forward(self, x):
        return super().forward(x) * torch.linspace(0, 1, x.shape[-1], dtype=torch.float32)


@pytest.mark.parametrize("to", [lambda one: one.double(), lambda one: one.to(torch.bfloat16), nn.Module.half])
def test_a_network_whose_steps_name_a_type_does_not_become_another_without_a_word(to, tmp_path):
    """It used to go on making tensors of the type that it was saved in."""
    export.save(frozen(Ramp), tmp_path)
    loaded = nni_dynconv.load(tmp_path)
    with pytest.raises(ExportError, match=r"saved in torch.float32.*linspace(.|\n)*`network.to\(torch\.\w+\)`, then"):
        to(loaded)
    assert {one.dtype for one in loaded.state_dict().values()} == {torch.float32}
    assert loaded.float().to("cpu")(image()).dtype == torch.float32


def no_context(network):
    network(image())


def other_context(network):
    network(image(), torch.zeros(3, 2))


def a_part(network):
    next(one for one in network.modules() if isinstance(one, DynamicOp))(image())


def other_batch(network):
    network(image(), vector(2))


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder, network = tmp_path_factory.mktemp("net"), frozen(encoder=VectorContext(5, 8), context=vector(), op="3x3")
    export.save(network, folder)
    return {"frozen": network, "loaded": nni_dynconv.load(folder)}


@pytest.mark.parametrize("form", ["frozen", "loaded"])
@pytest.mark.parametrize("wrong", [no_context, other_context, a_part, other_batch])
def test_what_is_wrong_with_a_call_of_it_is_told_without_a_mutator(wrong, form, forms):
    """Of a network that was loaded, an op outside a forward used to say: "Call the network through the mutator"."""
    with pytest.raises(DynConvError) as told:
        wrong(forms[form])
    assert "mutator" not in str(told.value)


def test_a_network_whose_steps_name_no_type_becomes_another(tmp_path):
    export.save(frozen(op="3x3"), tmp_path)
    loaded = nni_dynconv.load(tmp_path).double()
    assert loaded(image().double()).dtype == torch.float64


@pytest.mark.whole
def test_it_is_read_without_nni_in_another_process(tmp_path):
    network, x = frozen(encoder=OwnEncoder(), context=vector(), op="5x5"), image()
    export.save(network, tmp_path)
    save_file({"x": x, "context": vector(), "y": network(x, vector()).detach()}, tmp_path / "expected.safetensors")
    code = """
import sys, torch, nni_dynconv
from safetensors.torch import load_file
expected = load_file(sys.argv[1] + "/expected.safetensors")
network = nni_dynconv.load(sys.argv[1])
torch.testing.assert_close(network(expected["x"], expected["context"]), expected["y"])
assert "nni" not in sys.modules and "spaces" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_the_files_are_json_and_safetensors(tmp_path):
    export.save(frozen(op="3x3"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "README.md",
        "architecture.json",
        "example.npz",
        "network.json",
        "network.safetensors",
    ]
    assert json.loads((tmp_path / "architecture.json").read_text()) == {"architecture": {"op": "3x3"}}
    assert len(json.loads((tmp_path / "network.json").read_text())["sites"]) == 1


def test_saving_leaves_the_network_as_it_was(tmp_path):
    network = frozen(op="3x3").train()
    export.save(network, tmp_path)
    assert network.training and network.network.training


def test_a_folder_without_a_network_is_refused_in_words(tmp_path):
    with pytest.raises(ExportError, match=r"There is no network that can be read in (.|\n)*A search writes one"):
        nni_dynconv.load(tmp_path)


def test_a_damaged_file_is_refused_in_words(tmp_path):
    export.save(frozen(op="3x3"), tmp_path)
    path = tmp_path / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ExportError, match="There is no network that can be read"):
        nni_dynconv.load(tmp_path)


def test_a_tensor_that_is_missing_is_refused_in_words(tmp_path):
    export.save(frozen(op="3x3"), tmp_path)
    tensors = load_file(tmp_path / "network.safetensors")
    tensors.pop("source.controller.embedding")
    tamper(tmp_path, tensors=save(tensors))
    with pytest.raises(ExportError, match="controller.embedding"):
        nni_dynconv.load(tmp_path)


@pytest.mark.parametrize(
    "step",
    [
        {"call": "os.system", "args": ["true"]},
        {"call": "aten::from_file.default", "args": ["/etc/passwd"]},
        {"call": "aten::_reshape_alias.default", "args": [{"value": 0}, {"list": [9]}, {"list": [1]}]},
        {"call": "prims::add.default", "args": [{"value": 0}, {"value": 0}]},
        {"size": "__import__", "args": ["os"]},
        {"size": "attrgetter", "args": ["__class__"]},
        {"get": "__class__"},
        {"layer": "nothing", "args": [{"value": 0}], "sizes": []},
        {"call_everything": "x", "args": []},
        {"call": "aten::relu.default", "args": [{"value": 99}]},
        {"call": "aten::relu.default", "args": [{"value": 0}], "kwargs": {"a=1)\rimport os\r(b": 1}},
        {"call": "aten::relu.default", "args": [{"value": 0}], "kwargs": {"out": {"value": 0}}},
    ],
)
def test_a_file_that_calls_anything_but_torchs_operators_is_refused(step, tmp_path):
    export.save(frozen(Everything), tmp_path)
    tamper(tmp_path, lambda told: told["network"]["modes"]["eval"]["steps"].append(step))
    with pytest.raises(ExportError, match="There is no network that can be read"):
        nni_dynconv.load(tmp_path)


def named(reference):
    def change(description):
        description["controller"]["class"] = reference

    return change


def test_a_class_that_is_no_module_is_refused(tmp_path):
    export.save(frozen(op="3x3"), tmp_path)
    tamper(tmp_path, named("os:system"))
    with pytest.raises(ExportError, match="needs the class `os:system`, which is neither torch's nor this package's"):
        nni_dynconv.load(tmp_path)
    with pytest.raises(ExportError, match="`os:system` is no class of torch modules"):
        nni_dynconv.load(tmp_path, trust=["os"])


class Deciding(OneChoice):
    def forward(self, x):
        x = self.stem(x)
        return self.op(x) if x.sum() > 0 else x


class Forgetful(nn.Hardtanh):
    def __init__(self, limit):
        super().__init__(-limit, limit)


def test_a_forward_that_decides_by_values_is_kept_by_its_class_and_that_is_said(tmp_path):
    network = frozen(Deciding, op="3x3")
    with pytest.warns(UserWarning, match="saved by its class.*trust=.*Deciding cannot be written as a graph: .*Keep"):
        export.save(network, tmp_path)
    with pytest.raises(ExportError, match="trust="):
        nni_dynconv.load(tmp_path)
    loaded = nni_dynconv.load(tmp_path, trust=[Deciding.__module__])
    for x in (image(), -image()):
        torch.testing.assert_close(loaded(x), network(x))


def test_a_layer_that_forgets_its_arguments_is_refused_in_words():
    from nni_dynconv.export.modules import describe_module

    with pytest.raises(ExportError, match="does not keep its constructor's argument `limit`. Keep it as `self.limit`"):
        describe_module(Forgetful(2.0), "act")


class TestSupernet:
    def make(self, space=OneChoice, seed=0, **options):
        torch.manual_seed(seed)
        return DynamicWeightMutator(space(), sampler=RandomSampler(seed=0), **{"base": "learned", **options}).eval()

    def test_it_comes_back(self, tmp_path):
        mutator, other = self.make(), self.make(seed=1)
        export.save_supernet(mutator, tmp_path)
        export.load_supernet(other, tmp_path)
        for sample in ({"op": "3x3"}, {"op": "5x5"}):
            with mutator.using(sample), other.using(sample):
                torch.testing.assert_close(mutator(image()), other(image()))

    def test_one_of_another_space_is_refused_and_nothing_is_loaded(self, tmp_path):
        export.save_supernet(self.make(Everything), tmp_path)
        mutator = self.make()
        before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
        with pytest.raises(ExportError, match="is of another space or controller: `.*` is .* here but .* there"):
            export.load_supernet(mutator, tmp_path)
        assert all(torch.equal(value, before[name]) for name, value in mutator.space.state_dict().items())

    def test_a_missing_one_is_refused(self, tmp_path):
        with pytest.raises(ExportError, match="There is no supernet that can be read"):
            export.load_supernet(self.make(), tmp_path / "none")

    @pytest.mark.parametrize(
        ("saved", "loaded", "words"),
        [
            ({}, {"delta": "low_rank"}, r"`sites.op/3x3.recipe.delta` is low_rank here but full there"),
            ({"delta": "low_rank", "rank": 1}, {"delta": "low_rank", "rank": 2}, "recipe.rank` is 2 here but 1 there"),
            (
                {},
                {"controller": ChunkedController(signs=False)},
                "`controller.args.signs` is False here but True there",
            ),
            (
                {"controller": ExpertsController(routing="softmax")},
                {"controller": ExpertsController(routing="sigmoid")},
                "`controller.args.routing` is sigmoid here but softmax there",
            ),
            (
                {"controller": CoordinateController(nesting="centre")},
                {"controller": CoordinateController(nesting="free")},
                "`controller.args.nesting` is free here but centre there",
            ),
            (
                {"controller": FlatController(scale_rule="hyperfan_out")},
                {"controller": FlatController()},
                "`controller.args.scale_rule` is hyperfan_in here but hyperfan_out there",
            ),
            (
                {"controller": LowRankController()},
                {"controller": ChunkedController()},
                "`controller.class` is nni_dynconv.generation.controllers.chunked:ChunkedController here but .*LowRank",
            ),
            ({"base": "none"}, {}, "`sites.op/3x3.recipe.base` is learned here but none there"),
            ({}, {"architecture": ArchitectureEncoder(4)}, "`architecture_dim` is 4 here but None there"),
            ({}, {"context": VectorContext(5, 8)}, "`context_dim` is 8 here but None there"),
        ],
    )
    def test_one_of_other_settings_is_refused_by_name(self, saved, loaded, words, tmp_path):
        export.save_supernet(self.make(**copy.deepcopy(saved)), tmp_path)
        mutator = self.make(**copy.deepcopy(loaded))
        before = copy.deepcopy(mutator.space.state_dict())
        with pytest.raises(ExportError, match=f"of another space or controller: .*{words}"):
            export.load_supernet(mutator, tmp_path)
        torch.testing.assert_close(mutator.space.state_dict(), before)

    def test_one_of_other_kernels_or_in_another_order_is_refused(self, tmp_path):
        class Wider(OneChoice):
            def __init__(self):
                super().__init__()
                self.op = LayerChoice({"3x3": conv(3), "5x5": conv(7)}, label="op")

        class Turned(OneChoice):
            def __init__(self):
                super().__init__()
                self.op = LayerChoice({"5x5": conv(5), "3x3": conv(3)}, label="op")

        export.save_supernet(self.make(base="none"), tmp_path)
        with pytest.raises(
            ExportError, match=r"`sites.op/5x5.specs.weight.shape` is \[4, 4, 7, 7\] here but \[4, 4, 5"
        ):
            export.load_supernet(self.make(Wider, base="none"), tmp_path)
        with pytest.raises(ExportError, match=r"`sites.op/5x5.row` is 0 here but 1 there"):
            export.load_supernet(self.make(Turned, base="none"), tmp_path)

    def test_a_rank_that_says_nothing_may_change(self, tmp_path):
        export.save_supernet(self.make(rank=1), tmp_path)
        export.load_supernet(self.make(rank=2), tmp_path)

    def test_one_of_version_0_1_0_is_read_as_what_it_was(self, tmp_path):
        mutator = self.make(controller=ChunkedController(signs=False))
        export.save_supernet(mutator, tmp_path)
        (tmp_path / "supernet.json").write_text('{"format": 1, "choices": {}}')
        other = self.make(seed=1, controller=ChunkedController(signs=False))
        export.load_supernet(other, tmp_path)
        with mutator.using({"op": "3x3"}), other.using({"op": "3x3"}):
            torch.testing.assert_close(mutator(image()), other(image()))
        with pytest.raises(ExportError, match="`controller.args.signs` is True here but False there"):
            export.load_supernet(self.make(), tmp_path)
        with pytest.raises(ExportError, match="recipe.delta` is scale here but full there"):
            export.load_supernet(self.make(controller=ChunkedController(signs=False), delta="scale"), tmp_path)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"format": 7}', "it has format 7, but this version reads .* newer version: update nni_dynconv"),
            ("[]", "`supernet.json` has no format"),
            ("{", "JSONDecodeError"),
        ],
    )
    def test_a_damaged_description_is_refused(self, text, words, tmp_path):
        export.save_supernet(self.make(), tmp_path)
        (tmp_path / "supernet.json").write_text(text)
        with pytest.raises(ExportError, match=f"There is no supernet that can be read in .*{words}"):
            export.load_supernet(self.make(), tmp_path)


class OwnChunked(ChunkedController):
    pass


class Narrow(ChunkedController):
    def __init__(self):
        super().__init__(hidden=16)


def test_a_supernet_of_0_1_0_with_a_controller_of_ones_own_has_no_signs_either(tmp_path):
    make = TestSupernet().make
    export.save_supernet(make(controller=Narrow()), tmp_path)
    (tmp_path / "supernet.json").write_text('{"format": 1, "choices": {}}')
    with pytest.raises(ExportError, match="`controller.args.signs` is True here but False there"):
        export.load_supernet(make(controller=Narrow()), tmp_path)


def test_a_class_of_ones_own_is_read_where_it_is_trusted(tmp_path):
    torch.manual_seed(0)
    network = DynamicWeightMutator(OneChoice(), controller=OwnChunked()).eval().freeze({"op": "3x3"})
    export.save(network, tmp_path, example=image())
    name, package = OwnChunked.__module__, OwnChunked.__module__.partition(".")[0]
    with pytest.raises(ExportError, match=rf'If you trust that, say so: `nni.*load\(folder, trust=\["{package}"\]'):
        nni_dynconv.load(tmp_path)
    for trust in ([name], [package], package):
        torch.testing.assert_close(nni_dynconv.load(tmp_path, trust=trust)(image()), network(image()))


FILES = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "chunked"


def test_a_chunked_controller_of_ones_own_that_0_1_0_saved_has_no_signs(tmp_path):
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    written, example = json.loads((FILES / "network.json").read_text()), load_file(FILES / "example.safetensors")
    written["format"] = 1
    written["controller"]["class"] = f"{OwnChunked.__module__}:OwnChunked"
    for name in ("signs", "scale_rule", "encoding"):  # as it was then
        written["controller"]["args"].pop(name, None)
    (tmp_path / "network.json").write_text(json.dumps(written))
    network = nni_dynconv.load(tmp_path, trust=[OwnChunked.__module__])
    assert not network.source.controller.signs
    same = nni_dynconv.load(FILES)
    same.source.controller.sign_rows = None
    inputs = example["x"], example.get("context")
    torch.testing.assert_close(network(*inputs), same(*inputs))


class OwnOwnInput(OwnInputContext):
    def forward(self, site, x):
        return super().forward(site, x) * 0


def test_an_encoder_that_inherits_the_own_input_is_not_saved_as_that(tmp_path):
    with pytest.raises(ExportError, match="OwnOwnInput cannot be written: .* Take `OwnInputContext` itself"):
        export.save(frozen(encoder=OwnOwnInput(6), op="3x3"), tmp_path)
