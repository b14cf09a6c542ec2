"""Lifting: the lifted network equals the original, the report tells what happened, and nothing is left half done."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from often import by_default
from spaces import CHANNELS, Everything, OneChoice

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas import strategy
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub import pytorch as hub
from nni.nas.nn.pytorch import Cell, LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.utils.data import TensorDataset

from nni_dynconv import DynamicBatchNorm2d, DynamicConv2d, GdasSampler, RandomSampler, VectorContext
from nni_dynconv.errors import ConfigError, SpaceError
from nni_dynconv.lifting.lifting import lift, unlift
from nni_dynconv.lifting.twins import TWINS
from nni_dynconv.ops import DynamicLinear
from nni_dynconv.ops.choices import ChoiceOp

ROOT = Path(__file__).parents[2]

LAYERS = [
    (nn.Conv1d(4, 6, 3, padding=1, groups=2), (4, 8)),
    (nn.Conv2d(4, 6, (3, 5), stride=2, padding="valid", dilation=(2, 1), bias=False), (4, 8, 8)),
    (nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular"), (4, 8, 8)),
    (nn.Conv3d(2, 3, 3, padding=1), (2, 5, 5, 5)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 8)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5)),
    (nn.ConvTranspose3d(2, 3, 3, bias=False), (2, 3, 3, 3)),
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(5, 3, bias=False), (5,)),
    (nn.BatchNorm1d(4, momentum=None), (4, 6)),
    (nn.BatchNorm2d(4, eps=0.1), (4, 6, 6)),
    (nn.BatchNorm3d(4, track_running_stats=False), (4, 3, 3, 3)),
    (nn.GroupNorm(2, 4), (4, 6)),
    (nn.InstanceNorm1d(4, affine=True), (4, 6)),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (4, 6, 6)),
    (nn.InstanceNorm3d(4, affine=True), (4, 3, 3, 3)),
    (nn.LayerNorm((4, 6)), (4, 6)),
    (nn.LayerNorm(6, bias=False), (4, 6)),
]


def shuffled(layer):
    """A copy with parameters and running statistics that are not those of the start."""
    layer = copy.deepcopy(layer)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    for buffer in layer.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return layer


def check_equal(network, lifted, x, atol=1e-5):
    """A lifted network gives the output of the original, and its bases get the gradients of the original's weights."""
    mutator = lifted.mutator()
    mutator.reset()
    expected, y = network(x), mutator(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=atol)
    weight = torch.randn(expected.shape)
    (expected * weight).sum().backward()
    (y * weight).sum().backward()
    own = dict(network.named_modules())
    bases = dict(mutator.source.bases.named_parameters())
    for change in lifted.changes:
        for name, parameter in own[change.name].named_parameters():
            base = bases[f"{change.twin.site}.{name}"]
            torch.testing.assert_close(base.grad, parameter.grad, rtol=1e-4, atol=1e-4)


def test_every_twin_is_tried():
    assert {type(layer) for layer, _ in LAYERS} == set(TWINS)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda one: str(one)[:40])
def test_a_lifted_layer_starts_out_as_the_original_with_its_gradients(layer, shape, mode):
    torch.manual_seed(0)
    network = nn.Sequential(shuffled(layer)).train(mode == "train")
    lifted = lift(copy.deepcopy(network), where=type(layer))
    assert lifted.changes[0].twin.training == (mode == "train")
    check_equal(network, lifted, torch.randn(3, *shape))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_convolution_starts_out_as_the_original(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 2, 4]))
    arguments = {
        "kernel_size": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "stride": draw(st.sampled_from([1, 2, (1, 2)])),
        "dilation": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from([0, 1, (2, 0)])),
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    }
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, groups=groups, **arguments))
    check_equal(network, lift(copy.deepcopy(network)), torch.randn(2, 4, 7, 7))


class Net(nn.Module):
    """Every kind of module that lifting meets."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.body  # at two places
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.again(self.body(self.stem(x))).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net()


def image():
    return torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_whole_network_starts_out_as_the_original_with_its_gradients():
    network = net()
    lifted = lift(copy.deepcopy(network), where=[nn.Conv2d, nn.Linear, nn.BatchNorm2d])
    assert lifted.names == ["stem.0", "stem.1", "body", "head"] and not lifted.kept
    assert lifted.original.body is lifted.original.again
    check_equal(network, lifted, image())


def test_a_double_network_stays_one():
    network = net().double()
    lifted = lift(copy.deepcopy(network), where=[nn.Conv2d, nn.Linear, nn.BatchNorm2d])
    y = lifted.mutator()(image().double())
    torch.testing.assert_close(y, network(image().double()), rtol=1e-12, atol=1e-12)


def test_weights_that_were_not_trained_are_a_base_that_is_not_trained():
    network = net()
    network.stem.requires_grad_(False)
    source = lift(network, where=nn.Conv2d).mutator().source
    assert {name: base.requires_grad for name, base in source.bases.named_parameters()} == {
        "stem.0.weight": False,
        "stem.0.bias": False,
        "body.weight": True,
        "body.bias": True,
    }


def test_training_moves_the_delta_away_from_zero_and_a_context_then_matters():
    mutator = lift(net()).mutator(context=VectorContext(2, 4))
    mutator.reset()
    context = torch.randn(3, 2)
    before = mutator(image(), context=context)
    torch.testing.assert_close(before, mutator(image(), context=-context))
    mutator(image(), context=context).square().sum().backward()
    assert mutator.source.factors.grad.abs().sum() > 0
    with torch.no_grad():
        mutator.source.factors.add_(0.1)
    assert (mutator(image(), context=context) - mutator(image(), context=-context)).abs().max() > 1e-4


@pytest.mark.parametrize("base", ["none", "learned"])
def test_other_bases_start_out_as_the_mutator_does(base):
    network = net()
    mutator = lift(copy.deepcopy(network), base=base).mutator()
    mutator.reset()
    assert {recipe.base for recipe in mutator.source.recipes.values()} == {base}
    assert (mutator(image()) - network(image())).abs().max() > 1e-3


def test_a_layer_may_be_the_whole_network():
    layer = nn.Conv2d(1, 2, 3)
    lifted = lift(layer)
    assert lifted.names == [""] and "DynamicConv2d: (itself)" in str(lifted)
    torch.testing.assert_close(lifted.mutator()(image()), layer(image()))
    assert unlift(lifted) is layer


# Which modules


WHERE = [
    (nn.Linear, ["head"]),
    ("stem.*", ["stem.0", "stem.1"]),
    (re.compile(r"body|head"), ["body", "head"]),
    (lambda name, module: isinstance(module, nn.Conv2d) and module.in_channels == 1, ["stem.0"]),
    ([nn.Linear, "stem.0"], ["stem.0", "head"]),
    (None, ["stem.0", "body"]),
]


@pytest.mark.parametrize(("where", "names"), WHERE)
def test_where_chooses(where, names):
    assert lift(net(), where).names == names


def test_where_may_be_a_module():
    network = net()
    assert lift(network, network.head).names == ["head"]


def test_in_a_space_what_the_search_decides_about_is_lifted_by_default():
    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3)
            self.wide = MutableConv2d(4, 4, nni.choice("kernel", [1, 3]))
            self.op = LayerChoice([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.Identity()], label="op")

    lifted = lift(Space())
    assert lifted.names == ["wide", "op.0.0"]
    assert {kept.name: kept.reason for kept in lifted.kept} == {"stem": "not chosen", "op.0.1": "not chosen"}


# What it says


def test_the_report_says_what_was_lifted_and_what_not_and_why():
    assert str(lift(net())).splitlines() == [
        "Lifted 2 of 4 modules with parameters in Net: 188 values are made (base: given).",
        "  2 Conv2d -> DynamicConv2d: stem.0, body",
        "  1 BatchNorm2d kept, not chosen: stem.1",
        "  1 Linear kept, not chosen: head",
    ]


class Squared(nn.Linear):
    """A subclass that does more."""

    def forward(self, x):
        return super().forward(x).square()


class Awkward(nn.Module):
    """Modules with parameters that cannot be made elsewhere."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Linear(4, 4)
        self.table = nn.Embedding(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.table.weight
        self.hooked = nn.Linear(4, 4)
        self.hooked.register_forward_hook(lambda *_: None)
        self.replaced = nn.Linear(4, 4)
        self.replaced.forward = lambda x: x
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.recurrent = nn.GRU(4, 4)
        self.pair = nn.Bilinear(4, 4, 4)
        self.attention = nn.TransformerEncoderLayer(4, 1, 4)


def test_what_cannot_be_lifted_is_kept_with_the_reason():
    lifted = lift(Awkward(), where=lambda name, module: not name.startswith("normed."))
    reasons = {kept.name: kept.reason for kept in lifted.kept}
    hooks = "its hooks, or its own `forward`, would be lost"
    expected = {
        "table": "it shares a parameter with tied",
        "tied": "it shares a parameter with table",
        "hooked": hooks,
        "replaced": hooks,
        "normed": "there is no dynamic twin, and modules inside have parameters too",
        "recurrent": "there is no dynamic twin, and it keeps its weights in a place of its own",
        "pair": "there is no dynamic twin, and its forward does not take one input",
        "attention.linear1": "TransformerEncoderLayer may read its weights itself",
        "attention.self_attn": "TransformerEncoderLayer may read its weights itself",
    }
    assert expected.items() <= reasons.items()
    assert lifted.names == ["fine"]


class Offset(nn.Module):
    """A module of one's own, with a parameter that is called as one of a normalisation's."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("layer", [nn.PReLU(4), Squared(4, 4), Offset()])
def test_a_module_without_a_twin_is_called_with_made_parameters(layer):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), layer)
    lifted = lift(copy.deepcopy(network), where=nn.Module)
    assert lifted.names == ["0", "1"]
    check_equal(network, lifted, torch.randn(3, 4))


def test_a_module_without_a_twin_takes_one_set_a_sample():
    torch.manual_seed(0)
    lifted = lift(nn.Sequential(nn.Embedding(5, 4), Squared(4, 2)), where=nn.Module, base="learned")
    mutator = lifted.mutator(context=VectorContext(2, 4)).eval()
    x, context = torch.tensor([[0, 1], [2, 3], [4, 0]]), torch.randn(3, 2)
    y = mutator(x, context=context)
    for sample in range(3):
        torch.testing.assert_close(y[[sample]], mutator(x[[sample]], context=context[[sample]]))


def test_nothing_to_lift_is_an_error_that_names_what_there_is():
    with pytest.raises(
        SpaceError, match="Nothing can be lifted; say what in `where`(.|\n)*1 Linear kept, not chosen: 0"
    ):
        lift(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(SpaceError, match="takes a `ModelSpace` or a `torch.nn.Module`, but got a list"):
        lift([nn.Linear(2, 2)])


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="`base` is 'frozen', but must be 'given', 'learned' or 'none'"):
        lift(net(), base="frozen")
    with pytest.raises(ConfigError, match="`where` is 3, but must be a type of module, a glob"):
        lift(net(), where=3)
    with pytest.raises(
        ConfigError, match="`base` is 'none' here, but 'given' where the space was lifted. Say `base` to"
    ):
        lift(net(), where=nn.Conv2d).mutator(base="none")


def test_a_site_has_the_name_that_the_report_says():
    lifted = lift(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)))
    mutator = lifted.mutator(per_site={"1": {"delta": "scale"}})
    assert {name: one.delta for name, one in mutator.source.recipes.items()} == {"0": "full", "1": "scale"}
    assert list(mutator.source.sites) == lifted.names
    assert list(lift(nn.Conv2d(1, 2, 3)).mutator().source.sites) == ["network"]


def test_a_space_with_a_mutator_is_refused():
    lifted = lift(net())
    lifted.mutator()
    with pytest.raises(SpaceError, match="has a mutator, or is a supernet, already"):
        lift(lifted.space)


# Never half done


def state(module):
    return {name: id(one) for name, one in module.named_modules(remove_duplicate=False)}


def test_an_error_leaves_the_input_as_it_was():
    def fails_late(name, module):
        if name == "head":
            raise ZeroDivisionError
        return True

    network = net()
    before = state(network)
    with pytest.raises(ZeroDivisionError):
        lift(network, fails_late)
    assert state(network) == before


@pytest.mark.parametrize("started", [False, True])
def test_unlift_restores_the_modules_and_their_weights(started):
    network = net()
    before, weights = state(network), copy.deepcopy(network.state_dict())
    lifted = lift(network, where=[nn.Conv2d, nn.BatchNorm2d])
    assert state(network) != before
    if started:
        mutator = lifted.mutator()
        mutator.reset()
        mutator.train()(image()).sum().backward()
    assert unlift(lifted) is network and state(network) == before
    torch.testing.assert_close(network.state_dict(), weights)
    network(image())


def test_unlift_refuses_a_supernet():
    lifted = lift(hub.NasBench201(stem_out_channels=2, num_modules_per_stack=1))
    lifted.mutator(sampler=RandomSampler())
    with pytest.raises(SpaceError, match="is a supernet already, which cannot be undone. Lift a copy"):
        unlift(lifted)


def test_lifting_a_dynamic_space_leaves_its_dynamic_ops():
    space = OneChoice()
    before = state(space)
    lifted = lift(space, where="op.*")
    assert lifted.names == [] and state(space) == before
    assert lift(Everything(), where=nn.Conv2d).names == []


# Spaces


class Chosen(ModelSpace):
    """NNI's parametrised modules with `nni.choice` arguments."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [2, 4])
        self.conv = MutableConv2d(1, width, nni.choice("kernel", [1, 3]), padding=1, bias=False)
        self.norm = MutableBatchNorm2d(width)
        self.head = MutableConv2d(width, CHANNELS, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)))


@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler])
def test_choices_among_arguments_stay_and_decide_how_much_is_made(sampler):
    lifted = lift(Chosen(), where=[nn.Conv2d, nn.BatchNorm2d])
    assert all(isinstance(change.twin, ChoiceOp) for change in lifted.changes)
    mutator = lifted.mutator(sampler=sampler(seed=0)).eval()
    for width in (2, 4):
        sample = {"width": width, "kernel": 3}
        assert mutator.plan(sample).num_generated == width * 9 + 2 * width + CHANNELS * (width + 1)
        with mutator.using(sample):
            expected = mutator(image())
        torch.testing.assert_close(mutator.freeze(sample)(image()), expected)


def test_the_variant_of_the_space_as_it_stands_starts_out_with_its_weights():
    torch.manual_seed(0)
    space = Chosen()
    expected = space(image())
    mutator = lift(space, where=[nn.Conv2d, nn.BatchNorm2d]).mutator(sampler=RandomSampler())
    with mutator.using({"width": 2, "kernel": 1}):
        torch.testing.assert_close(mutator(image()), expected)


def test_an_architecture_by_itself_keeps_the_weights_of_its_variants():
    torch.manual_seed(0)
    space = Chosen()
    space.norm.requires_grad_(False)
    expected = space(image())
    alone = lift(space, where=[nn.Conv2d, nn.BatchNorm2d]).freeze({"width": 2, "kernel": 1})
    assert alone.names == ["conv", "norm", "head"]
    torch.testing.assert_close(alone.mutator()(image()), expected)


class Cells(ModelSpace):
    """A cell whose candidates a factory makes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 1)
        candidates = {
            "conv": lambda node, slot, source: nn.Sequential(nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
            "point": lambda node, slot, source: nn.Conv2d(CHANNELS, CHANNELS, 1),
            "skip": lambda node, slot, source: nn.Identity(),
        }
        self.cell = Cell(candidates, num_nodes=2, num_ops_per_node=2, num_predecessors=1, label="cell")

    def forward(self, x):
        return self.cell([self.stem(x)])


def test_what_a_factory_makes_for_a_cell_is_lifted_too_and_starts_with_its_weights():
    lifted = lift(Cells(), where="cell.*.conv.1")
    mutator = lifted.mutator(sampler=RandomSampler(seed=0))
    assert len(mutator.source.sites) == 3 and all(name.endswith("/conv.1") for name in mutator.source.sites)
    bases = dict(mutator.source.bases.named_parameters())
    for op in [one for one in mutator.space.modules() if isinstance(one, DynamicConv2d)]:
        torch.testing.assert_close(bases[f"{op.site}.weight"], op.lifted_from.module.weight)


def test_unlift_gives_a_cell_its_factory_back():
    space = Cells()
    factory = space.cell.op_candidates_factory
    lifted = lift(space)
    assert space.cell.op_candidates_factory is not factory
    unlift(lifted)
    assert space.cell.op_candidates_factory is factory
    assert not [one for one in space.modules() if isinstance(one, DynamicConv2d)]


def test_a_space_that_freezes_by_building_itself_anew_freezes_to_a_dynamic_one():
    """NNI's NASNet family: what was lifted used to be lost."""
    space = lift(hub.DARTS(width=2, num_cells=(3, 4), dataset="cifar")).space
    sample = {}
    space.random(sample)
    assert any(isinstance(one, DynamicConv2d) for one in space.freeze(sample).modules())


ALONE = {
    "constraints": lambda: hub.NasBench101(stem_out_channels=8, num_stacks=1, num_modules_per_stack=1),
    "cells and depth": lambda: hub.ENAS(width=(2, 4), num_cells=(3, 4)),
}


@pytest.mark.parametrize("space", by_default("constraints", of=ALONE))
def test_an_architecture_can_be_lifted_by_itself(space):
    """Of spaces that no supernet covers. A frozen cell used to be taken for one to search."""
    lifted = hub_page().draw(lift(ALONE[space]()), seed=0)
    mutator = lifted.mutator()
    assert mutator.reset() == {} and mutator.plan()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(mutator.eval()(x), mutator.freeze()(x))


class Parametrised(nn.Module):
    """Before a cell: NNI's parametrised modules."""

    def __init__(self):
        super().__init__()
        self.norm = MutableBatchNorm2d(CHANNELS)

    def forward(self, inputs):
        return [self.norm(one) for one in inputs]


class ParametrisedCells(Cells):
    """A cell with NNI's parametrised modules around its convolutions, as in NNI's NASNet family."""

    def __init__(self):
        super().__init__()
        candidates = {
            "conv": lambda node, slot, source: nn.Sequential(
                MutableConv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), MutableBatchNorm2d(CHANNELS)
            ),
            "skip": lambda node, slot, source: nn.Identity(),
        }
        self.cell = Cell(candidates, 2, num_predecessors=1, preprocessor=Parametrised(), label="cell")


def test_a_cell_with_nnis_parametrised_modules_freezes():
    """They used to stay as in the supernet, waiting for a sample."""
    mutator = lift(ParametrisedCells()).mutator(sampler=RandomSampler(seed=0))
    mutator.train()
    for _ in range(4):
        mutator.reset()
        mutator(image())
        network = copy.deepcopy(mutator).eval().freeze(mutator.sample)
        torch.testing.assert_close(network(image()), copy.deepcopy(mutator).eval()(image()))


def test_twins_keep_the_words_of_their_arguments():
    lifted = lift(nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2, padding="valid"), nn.Linear(3, 2)), nn.Module)
    conv, linear = (change.twin for change in lifted.changes)
    assert repr(conv) == repr(DynamicConv2d(4, 8, 3, stride=2, groups=2, padding="valid"))
    assert repr(linear) == repr(DynamicLinear(3, 2))
    norm = lift(nn.Sequential(nn.BatchNorm2d(4, eps=0.5)), nn.BatchNorm2d).changes[0].twin
    assert isinstance(norm, DynamicBatchNorm2d) and norm.eps == 0.5


# NNI's strategies


class Images(ModelSpace):
    """A space as its user wrote it."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 5, padding=2)], label="op")
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.op(x).mean((2, 3)))


def evaluator():
    data = TensorDataset(torch.randn(16, 1, 6, 6), torch.randint(0, 3, (16,)))
    loaders = {"train_dataloaders": DataLoader(data, 8), "val_dataloaders": DataLoader(data, 8)}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Classification(num_classes=3, max_epochs=1, accelerator="cpu", **loaders, **quiet)


ONE_SHOT = [strategy.DARTS, strategy.GumbelDARTS, strategy.RandomOneShot]
MULTI_TRIAL = [strategy.Random, strategy.GridSearch, strategy.RegularizedEvolution, strategy.TPE]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("search", [*ONE_SHOT, *MULTI_TRIAL])
def test_nnis_strategies_search_a_lifted_space_and_their_samples_freeze(search):
    mutator = lift(Images()).mutator(sampler=False)
    engine = SequentialExecutionEngine(max_model_count=2 if search in MULTI_TRIAL else None)
    found = search()
    found(RawFormatModelSpace(mutator.space, evaluator()), engine)
    best = next(iter(found.list_models()))
    assert best.metric is not None or search in ONE_SHOT
    network = mutator.freeze(best.sample)
    assert network(image()).shape == (3, 3) and len(network.source.sites) == 1


# NNI's hub


def hub_page():
    """The script of `docs/hub.md`."""
    spec = importlib.util.spec_from_file_location("make_hub_table", ROOT / "docs" / "make_hub_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_space_of_the_hub_is_tried_and_on_the_page():
    spaces = {one for _, one in inspect.getmembers(hub, inspect.isclass) if issubclass(one, ModelSpace)}
    page = hub_page()
    assert spaces == {case.make for case in page.CASES.values()}
    rows = re.findall(r"^\| ([^|]+) \| \d", (ROOT / "docs" / "hub.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(page.CASES)


@pytest.mark.parametrize("name", by_default("NasBench201", of=["NasBench201", "AutoFormer"]))
def test_a_space_of_the_hub_lifts_runs_and_freezes(name):
    page = hub_page()
    row = page.try_case(page.CASES[name], architectures=2)
    assert row.lifted and not row.refused and len(row.values) == 2


@pytest.mark.slow
@pytest.mark.nni
@pytest.mark.parametrize("name", list(hub_page().CASES))
def test_ten_architectures_of_every_space_of_the_hub_run_and_freeze(name):
    page = hub_page()
    row = page.try_case(page.CASES[name])
    assert row.lifted and len(row.values) == 10 and max(row.values) > 0


def test_many_bases_of_variants_are_warned_of_with_both_numbers(monkeypatch):
    monkeypatch.setattr(importlib.import_module("nni_dynconv.lifting.lifting"), "MANY", 0)
    with pytest.warns(UserWarning, match=r"a base of its own: 108 values, where NNI's supernet.* has 36\. Give"):
        lift(Wide(), where="conv").mutator(sampler=RandomSampler())


class Wide(ModelSpace):
    """Three kernels of one layer."""

    def __init__(self):
        super().__init__()
        self.conv = MutableConv2d(1, CHANNELS, nni.choice("kernel", [3, (3, 3), (1, 9)]), bias=False)

    def forward(self, x):
        return self.conv(x)
