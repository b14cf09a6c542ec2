"""Modules that read what their layers have: served in a forward, or the layer is kept and the report says why."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytest
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import ModelSpace, MutableConvTranspose2d
from torch import nn
from torch.nn.utils import parametrizations

from nni_dynconv import OwnInputContext, VectorContext, lift
from nni_dynconv.errors import ScopeError, ShapeError, SpaceError

IMAGE = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
CONTEXT = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))


class Conv(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, **options)


class ReadsDtype(Conv):
    def forward(self, x):
        return self.conv(x.to(self.conv.weight.dtype)[:, : self.conv.weight.shape[1]])


class ReadsDevice(Conv):
    def forward(self, x):
        layer = self.conv
        return layer(x.to(layer.weight.device, layer.bias.dtype)) * layer.weight.dim()


class AsksForBias(Conv):
    def __init__(self):
        super().__init__(bias=False)

    def forward(self, x):
        return self.conv(x) if self.conv.bias is None else self.conv(x) + self.conv.bias.sum()


class Loops(nn.Module):
    """Its layers are found by a loop, which its code does not tell."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = F.linear(x, layer.weight, bias=layer.bias)
        return x


class Computes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    def forward(self, x):
        return x @ self.inner[1].weight.T + self.inner(x)


class AsksForParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.second(self.first(x.to(next(self.first.parameters()).dtype)))


class AsksInAProperty(AsksForParameters):
    @property
    def dtype(self):
        return next(self.first.parameters()).dtype

    def forward(self, x):
        return self.second(self.first(x.to(self.dtype)))


class SumsInAMethod(AsksForParameters):
    def size(self):
        return sum(p.square().sum() for name, p in self.first.named_parameters())

    def forward(self, x):
        return self.second(self.first(x)) + self.size()


class SumsOneThatStays(nn.Module):
    """It has a parameter that is not lifted, which is not the only one that it sums."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.inner = nn.Sequential(nn.Linear(3, 3), torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))

    def forward(self, x):
        return self.second(self.inner(x)) + sum(p.sum() for p in self.inner.parameters())


def check(network, x, where="*", **options):
    """It is the original at the start, and afterwards what each sample gets alone; return what was lifted."""
    network.eval()
    y, lifted = network(x), lift(network, where=where)
    mutator = lifted.mutator(context=VectorContext(5, 8), **options).eval()
    torch.testing.assert_close(mutator(x, context=CONTEXT), y)
    nn.init.constant_(mutator.source.factors, 0.3)
    y = mutator(x, context=CONTEXT)
    alone = [mutator(x[k : k + 1], context=CONTEXT[k : k + 1]) for k in range(2)]
    torch.testing.assert_close(torch.cat(alone), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mutator.freeze({}).eval()(x, CONTEXT), y)
    return lifted


@pytest.mark.parametrize("make", [ReadsDtype, ReadsDevice, AsksForBias])
def test_what_a_weight_tells_is_served(make):
    """A bias that a layer did not have used to be `False`, which is not None."""
    assert check(make(), IMAGE).names == ["conv"]


def test_torchs_functions_take_a_weight_that_is_read():
    assert check(Loops(), ROWS).names == ["layers.0", "layers.1"]
    network = Loops()
    y = network(ROWS)
    torch.testing.assert_close(lift(network, where="*").mutator()(ROWS), y)


def test_other_computations_with_weights_that_are_not_shared_are_refused():
    class Scales(Loops):
        def forward(self, x):
            return sum(layer(x) * layer.weight.mean() for layer in self.layers)

    network = Scales()
    y, lifted = network(ROWS), lift(network, where="*")
    mutator = lifted.mutator(context=VectorContext(5, 8))
    with pytest.raises(ScopeError, match=r"`layers.0.weight` is read by a module that computes with it, but each"):
        mutator(ROWS, context=CONTEXT)
    torch.testing.assert_close(mutator(ROWS, context=CONTEXT[:1]), y)  # shared


def test_a_weight_that_is_made_from_the_layers_input_tells_its_type_before():
    network = ReadsDtype()
    y, lifted = network(IMAGE), lift(network)
    torch.testing.assert_close(lifted.mutator(context=OwnInputContext(4))(IMAGE), y)


def test_outside_a_forward_a_lifted_layer_has_no_weight():
    network = ReadsDtype()
    mutator = lift(network).mutator()
    assert not hasattr(network.conv, "weight") and not hasattr(network.conv, "bias")
    with pytest.raises(AttributeError, match="'DynamicConv2d' object has no attribute 'weight'"):
        network.conv.weight  # noqa: B018
    assert mutator.plan().num_generated == 40


@pytest.mark.parametrize(
    ("make", "kept", "reason"),
    [
        (Computes, ["inner.1"], "`forward` of Computes computes with its `weight` itself"),
        (AsksForParameters, ["first"], "`forward` of AsksForParameters asks for `parameters()`, which would be gone"),
        (AsksInAProperty, ["first"], "`dtype` of AsksInAProperty asks for `parameters()`, which would be gone"),
        (SumsInAMethod, ["first"], "`size` of SumsInAMethod asks for `named_parameters()`, which would be gone"),
    ],
)
def test_a_layer_that_its_parent_computes_with_is_kept(make, kept, reason):
    lifted = check(make(), ROWS)
    assert [one.name for one in lifted.kept] == kept and lifted.kept[0].reason == reason


def test_a_sum_of_all_parameters_keeps_each_of_them():
    lifted = check(SumsOneThatStays(), ROWS, where="*")
    assert lifted.names == ["first", "second"]


def test_what_a_class_further_down_replaces_does_not_count():
    class Calls(Computes):
        def forward(self, x):
            return self.inner(x)

    assert check(Calls(), ROWS).names == ["inner.0", "inner.1"]


def test_where_nothing_is_left_lifting_is_refused_by_name():
    class Alone(Conv):
        def forward(self, x):
            return self.conv(x.to(next(self.parameters()).dtype))

    with pytest.raises(SpaceError, match=r"(?s)Nothing can be lifted.*asks for `parameters\(\)`.*: conv"):
        lift(Alone())


# Layers that are not torch's own


class Steps(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        state = None
        for _ in range(3):
            state = self.cell(x, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_that_takes_its_state_is_kept(cell):
    lifted = check(Steps(cell), ROWS)
    assert lifted.names == ["head"] and "does not take one input" in lifted.kept[0].reason


class Pair(nn.Conv2d):
    def forward(self, x):
        y = super().forward(x)
        return y, {"mean": y.mean((2, 3)), "channels": 4}


class TakesPairs(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y, told = self.layer(x)
        return y * told["mean"][:, :, None, None] * told["channels"]


def test_a_subclass_that_returns_several_outputs_is_lifted():
    assert check(TakesPairs(Pair(1, 4, 3)), IMAGE).names == ["layer"]


def test_an_output_that_samples_cannot_be_put_together_in_is_refused():
    class Sums(Pair):
        def forward(self, x):
            y = nn.Conv2d.forward(self, x)
            return y, {"mean": y.mean(), "channels": 4}

    mutator = lift(TakesPairs(Sums(1, 4, 3)), where=Sums).mutator(context=VectorContext(5, 8))
    with pytest.raises(ShapeError, match=r"`layer`: samples run one after another.*Sums gives a tensor \(\) for one"):
        mutator(IMAGE, context=CONTEXT)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_layer_whose_weight_is_computed_is_kept(norm):
    lifted = check(nn.Sequential(norm(nn.Linear(3, 3)), nn.PReLU(), nn.Linear(3, 2)), ROWS)
    assert lifted.names == ["1", "2"]


@pytest.mark.filterwarnings("ignore")
def test_a_layer_whose_weight_a_hook_computes_is_kept():
    lifted = lift(nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2)), where=nn.Linear)
    assert lifted.names == ["1"] and lifted.kept[0].reason == "its hooks, or its own `forward`, would be lost"


def test_tied_weights_stay_tied():
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    network[2].weight = network[0].weight
    lifted = check(network, ROWS)
    assert lifted.names == ["1"] and network[0].weight is network[2].weight


def test_a_subclass_of_torchs_attention_reads_its_weights_too():
    class Own(nn.MultiheadAttention):
        pass

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = Own(3, 1, batch_first=True), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0])

    assert check(Attends(), ROWS[:, None].expand(2, 4, 3)).names == ["head"]


# Transposed convolutions


class Up(nn.Module):
    def __init__(self, rank, by_name):
        super().__init__()
        conv, up = (getattr(nn, f"{kind}{rank}d") for kind in ("Conv", "ConvTranspose"))
        self.down, self.up, self.by_name = conv(1, 4, 3, stride=2, padding=1), up(4, 2, 3, stride=2, padding=1), by_name

    def forward(self, x):
        y, size = self.down(x), x.shape[2:]
        return self.up(y, output_size=size) if self.by_name else self.up(y, size)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_transposed_convolution_takes_an_output_size(rank, size, by_name):
    assert check(Up(rank, by_name), torch.randn(2, 1, *[size] * rank)).names == ["down", "up"]


def test_a_network_with_an_output_size_is_saved(tmp_path):
    from nni_dynconv import export

    network = lift(Up(2, True)).mutator(context=VectorContext(5, 8)).freeze({}).eval()
    x = torch.randn(2, 1, 7, 7)
    export.save(network, tmp_path, example=(x, CONTEXT))
    torch.testing.assert_close(export.load(tmp_path)(x, CONTEXT), network(x, CONTEXT))


def test_an_output_size_that_there_cannot_be_is_refused():
    class TooLarge(Up):
        def forward(self, x):
            return self.up(self.down(x), output_size=(20, 20))

    mutator = lift(TooLarge(2, True)).mutator()
    with pytest.raises(ShapeError, match=r"`up`: output_size = \(20, 20\) for x \(2, 4, 3, 3\): requested an output"):
        mutator(IMAGE)


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.GroupNorm(1, 2)
        self.act, self.up = nn.PReLU(), nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1)

    def forward(self, x):
        y = self.act(input=self.norm(input=self.down(input=x)))
        return self.up(input=y, output_size=x.shape)


def test_a_layer_takes_its_input_by_torchs_keyword():
    assert len(check(ByKeyword(), torch.randn(2, 1, 6, 6)).names) == 4


def test_a_layer_with_choices_takes_an_output_size():
    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.up = MutableConvTranspose2d(1, 2, nni.choice("kernel", [3, 4]), stride=2, padding=1)

        def forward(self, x):
            return self.up(x, output_size=(12, 12)) + self.up(x, (12, 12))

    mutator = lift(Space()).mutator(context=VectorContext(5, 8))
    for kernel in (3, 4):
        with mutator.using({"kernel": kernel}, context=CONTEXT):
            assert mutator.space(torch.randn(2, 1, 6, 6)).shape == (2, 2, 12, 12)
