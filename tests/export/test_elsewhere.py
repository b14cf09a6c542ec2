"""ONNX and programs: each form computes what the network does, for 1, 3 and 17 samples, or there is no file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from often import by_default, each_once
from own_search import Waves
from spaces import CellSpace, Everything, OneChoice, image, vector
from torch import nn
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, OwnInputContext, RandomSampler, VectorContext, export
from nni_dynconv.errors import ContextError, ExportError, ShapeError
from nni_dynconv.export.elsewhere import onnx as module
from nni_dynconv.export.elsewhere.checked import Flat, Flattened, largest_difference
from nni_dynconv.export.portable.running import _check
from nni_dynconv.generation import Call, controllers
from nni_dynconv.runs import Run
from nni_dynconv.search import Writer

CONTROLLERS = [name for name in controllers.__all__ if name != "Controller"]
FORMS = ("dynamic", "grouped", "baked")
RECIPES = (
    {"base": "learned", "delta": "low_rank", "rank": 2},
    {"base": "learned", "delta": "scale"},
    {"base": "learned", "delta": "full"},
    {"base": "learned", "delta": "none"},
    {"delta": "full"},
)


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")


def written(folder, space=Everything, inputs=None, encoder=None, sample=None, **settings):
    """Save a frozen network with an example; return it as it is loaded, with that."""
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if encoder is None else encoder
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=encoder, **settings).eval()
    sample = mutator.reset() if sample is None else sample
    export.save(mutator.freeze(sample), folder, example=inputs or (image(4), vector(4)))
    return nni_dynconv.load(folder), export.example_in(folder)


@pytest.mark.whole
@each_once(form=FORMS, space=[Everything, CellSpace], otherwise="slow")
def test_each_form_runs_in_onnx_runtime_and_is_the_same(form, space, tmp_path):
    network, shown = written(tmp_path, space, base="learned")
    found = export.export_onnx(network, tmp_path / "model.onnx", shown, form, batch=3)
    assert found.error < 1e-4 and found.opset == 20
    assert found.batches == ((3,) if form == "grouped" else (1, 3, 17))
    assert list(found.inputs) == (["x"] if form == "baked" else ["x", "context"]) and found.outputs == ("output",)
    told = json.loads((tmp_path / "model.onnx.json").read_text())
    assert told["error"] == found.error and told["form"] == form
    assert sorted(one.name for one in tmp_path.glob("*.onnx*")) == ["model.onnx", "model.onnx.json"]


@pytest.mark.slow  # `test_dynamic_batch.py` runs them all in ONNX's reference
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_runs_in_onnx_runtime(name, tmp_path):
    network, shown = written(tmp_path, OneChoice, sample={"op": "5x5"}, controller=getattr(controllers, name)())
    assert export.export_onnx(network, tmp_path / "model.onnx", shown).error < 1e-4


@pytest.mark.whole
@pytest.mark.parametrize(
    "recipe", by_default(RECIPES[0], of=RECIPES, otherwise="slow"), ids=lambda one: " ".join(map(str, one.values()))
)
@pytest.mark.parametrize(
    "form", ["dynamic", *(pytest.param(one, marks=pytest.mark.slow) for one in ("grouped", "baked"))]
)
def test_every_delta_runs_in_onnx_runtime(recipe, form, tmp_path):
    network, shown = written(tmp_path, Waves, (torch.randn(4, 1, 16), vector(4)), **recipe)
    assert export.export_onnx(network, tmp_path / "model.onnx", shown, form, batch=3).error < 1e-4


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: " ".join(map(str, one.values())))
def test_every_delta_is_baked_into_ordinary_layers(recipe):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Waves(), sampler=RandomSampler(0), context=VectorContext(5, 8), **recipe).eval()
    network = mutator.freeze(mutator.reset()).double()
    x, context = torch.randn(3, 1, 16).double(), vector(1).double()
    with torch.no_grad(), network.fixed(context):
        fixed = network(x)
    for one in (fixed, export.make_static(network, context)(x)):
        torch.testing.assert_close(one, network(x, context), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_weights_of_each_layers_own_input_run_in_onnx_runtime(tmp_path):
    network, shown = written(tmp_path, OneChoice, (image(4),), OwnInputContext(8), {"op": "3x3"})
    assert export.export_onnx(network, tmp_path / "model.onnx", shown).error < 1e-4
    with pytest.raises(ContextError, match="cannot be made beforehand"):
        export.export_onnx(network, tmp_path / "model.onnx", shown, "baked")


@pytest.mark.slow
def test_a_grouped_file_has_convolutions_with_a_group_for_each_sample_and_their_kernels_shape(tmp_path):
    import onnx

    network, shown = written(tmp_path, OneChoice, sample={"op": "5x5"})
    export.export_onnx(network, tmp_path / "model.onnx", shown, "grouped", batch=7)
    model = onnx.load(tmp_path / "model.onnx")
    told = [{one.name: one for one in node.attribute} for node in model.graph.node if node.op_type == "Conv"]
    assert all("kernel_shape" in one for one in told)
    assert (7, [5, 5]) in [(one["group"].i, list(one["kernel_shape"].ints)) for one in told]
    assert not any(one.external_data for one in model.graph.initializer)


@pytest.mark.whole
def test_scales_of_channels_leave_an_ordinary_convolution_and_a_factor(tmp_path):
    import onnx

    inputs = torch.randn(4, 1, 16), vector(4)
    sample = {"stem": "wide7", "mid": "nothing", "activation": "relu"}
    network, shown = written(tmp_path, Waves, inputs, sample=sample, base="learned", delta="scale")
    found = export.export_onnx(network, tmp_path / "model.onnx", shown)
    graph = onnx.load(tmp_path / "model.onnx").graph
    kept = {one.name: list(one.dims) for one in graph.initializer}
    (conv,) = [node for node in graph.node if node.op_type == "Conv"]
    assert found.error < 1e-4 and [size for size in kept[conv.input[1]] if size > 1] == [6, 7]
    assert not {"Slice", "Pad"} & {node.op_type for node in graph.node}  # no patches are laid out


@pytest.mark.whole
@pytest.mark.parametrize("form", by_default("dynamic", of=FORMS))
def test_a_program_is_read_without_this_package(form, tmp_path):
    network, shown = written(tmp_path, Waves, (torch.randn(4, 1, 16), vector(4)), base="learned")
    found = export.export_program(network, tmp_path / "model.pt2", shown, form, batch=3)
    assert found.error < 1e-4
    code = (
        "import sys, torch; sys.modules['nni_dynconv'] = None; net = torch.export.load(sys.argv[1]).module(); "
        "print(net(*[torch.ones(3, *one) for one in eval(sys.argv[2])])[0].shape)"
    )
    shapes = [(1, 16)] if form == "baked" else [(1, 16), (5,)]
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt2"), repr(shapes)]
    assert "[3, 3]" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Looping(nn.Module):
    """Decides by how many samples there are: exporters bind that, and say nothing."""

    def forward(self, x):
        return torch.stack([one * (k + 1) for k, one in enumerate(x)])


@pytest.mark.whole
def test_what_takes_one_number_of_samples_is_refused_in_words(tmp_path):
    """ONNX Runtime used to say "Got invalid dimensions for input"."""
    looping = Flat(Looping(), Call((torch.ones(3, 2),), {}))
    calls = {size: (torch.ones(size, 2),) for size in (1, 3, 17)}
    given = Flattened("dynamic", looping, looping, calls, ["x"], ["y"], [{0: torch.export.Dim("batch")}])
    module._write(given, tmp_path / "model.onnx", 20)
    import onnx

    with pytest.raises(ExportError, match=r"for any number of samples: it was tried with 3.*`form=\"grouped\""):
        module._check_free(given, onnx.load(tmp_path / "model.onnx"))


@pytest.mark.whole
def test_what_computes_something_else_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    network, shown = written(tmp_path, OneChoice, sample={"op": "3x3"})
    run = module._run
    monkeypatch.setattr(module, "_run", lambda session, fed: [one + 0.01 for one in run(session, fed)])
    with pytest.raises(ExportError, match="ONNX Runtime computes something else"):
        export.export_onnx(network, tmp_path / "model.onnx", shown)
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_form_that_there_is_none_is_refused(tmp_path):
    network, shown = written(tmp_path, OneChoice, sample={"op": "3x3"})
    with pytest.raises(ExportError, match="`form` is 'other'"):
        export.export_onnx(network, tmp_path / "model.onnx", shown, "other")


def test_what_onnx_needs_is_named_where_it_is_missing(tmp_path, monkeypatch):
    network, shown = written(tmp_path, OneChoice, sample={"op": "3x3"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ExportError, match=r"`onnxruntime`, which is not installed: `pip install 'nni_dynconv\[onnx\]'`"
    ):
        export.export_onnx(network, tmp_path / "model.onnx", shown)


def test_differences_are_seen():
    one = torch.ones(2, 2)
    assert largest_difference([one], [one]) == 0.0
    assert largest_difference([one], [one * 1.01]) == pytest.approx(0.01, rel=0.02)
    for other in ([one[0]], [], [one * float("nan")]):
        assert largest_difference([one], other) == float("inf")
    assert largest_difference([], []) == float("inf")  # nothing is the same as nothing, which was taken for a success


class Outputs(OrderedDict):
    """As models of transformers return them."""


def test_outputs_in_a_mapping_of_a_class_of_ones_own_are_outputs():
    """There used to be none in the file, which ONNX Runtime then refused."""

    class Network(nn.Module):
        def forward(self, x):
            return Outputs(first=x + 1, both=(x, {"x": x * 2}))

    x = torch.ones(2)
    assert [one.tolist() for one in Flat(Network(), Call((x,), {}))(x)] == [[2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]


def test_what_a_graph_decided_by_a_size_is_compared_as_a_bool():
    """Torch said "BooleanAtom not allowed in this context", when a loaded network with such a step was exported."""
    env, source = ShapeEnv(), ConstantSource("samples")
    samples = env.create_symintnode(env.create_symbol(5, source=source), hint=5, source=source)
    _check(samples != 1, True)
    with pytest.raises(ShapeError, match="what was False of those"):
        _check(samples != 1, False)


# One context, baked in


def test_a_baked_network_is_the_network_with_that_context(tmp_path):
    network, _ = written(tmp_path, base="learned")
    baked = export.bake(network, vector(1))
    torch.testing.assert_close(baked(image(6)), network(image(6), vector(1)).detach())
    assert not any("controller" in name for name, _ in baked.named_parameters())
    torch.testing.assert_close(network(image(6), vector(6)), network(image(6), vector(6)))
    assert isinstance(baked, nn.Module)


def test_many_contexts_cannot_be_baked(tmp_path):
    network, _ = written(tmp_path)
    with pytest.raises(ContextError, match="one context, but 3 were given"):
        export.bake(network, vector(3))
    with pytest.raises(ContextError):
        export.bake(network)


def test_weights_are_made_once_for_a_context_that_lasts(tmp_path, monkeypatch):
    network, _ = written(tmp_path, base="learned")
    wanted = [network(image(2, seed), vector(1)).detach() for seed in range(3)]
    made = []
    own = network.source.make
    monkeypatch.setattr(network.source, "make", lambda *args: made.append(args) or own(*args))
    with torch.no_grad(), network.fixed(vector(1)):
        for seed, one in enumerate(wanted):
            torch.testing.assert_close(network(image(2, seed)), one)
        assert len(made) == 1
        with pytest.raises(ContextError, match="weights are fixed"):
            network(image(2), vector(2))
    torch.testing.assert_close(network(image(2, 0), vector(1)).detach(), wanted[0])


@pytest.mark.whole
def test_a_trial_writes_what_nnis_page_opens_and_a_failure_is_only_noted(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.begin()
    network, _ = written(run.folder, OneChoice, sample={"op": "3x3"})
    Writer(run).for_netron(network)
    assert (run.folder / "model.onnx").is_file() and not run.problems
    monkeypatch.setattr(module, "_run", lambda session, fed: [])
    Writer(run).for_netron(network)
    assert "computes something else" in run.problems["onnx"]
