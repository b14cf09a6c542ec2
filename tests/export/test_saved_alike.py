"""Whatever a network is made of, what is read back does the same: in both modes, with any batch; or it is refused."""

from __future__ import annotations

import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nni_dynconv
from nni_dynconv import VectorContext, export, lift
from nni_dynconv.errors import ExportError, ShapeError
from nni_dynconv.ops import DynamicLinear
from nni_dynconv.ops.call import DynamicCall

Pair = namedtuple("Pair", ["first", "second"])


class Around(nn.Module):
    """A dynamic layer, and something behind it."""

    def __init__(self, layer=None):
        super().__init__()
        self.a, self.layer = nn.Linear(8, 8), layer

    def forward(self, x):
        return self.layer(self.a(x))


class Attending(Around):
    def forward(self, x):
        h = self.a(x)
        return self.layer(h, h, h, need_weights=False)[0]


class Embedding(Around):
    def __init__(self):
        super().__init__(nn.Embedding(11, 8))

    def forward(self, ids):
        return self.a(self.layer(ids))


class Functional(Around):
    def forward(self, x):
        torch._assert(x.shape[-1] == 8, "eight values")
        a, b = torch.split(self.a(x), [3, 5], dim=-1)
        return F.dropout(torch.cat([b, a], -1), 0.5, self.training)


class Outputs(Around):
    def forward(self, x, *, scale=None):
        y = self.a(x) if scale is None else self.a(x) * scale
        return {"y": y, "more": (y.mean(), [Pair(y, None)]), "what": 3}


class Deciding(Around):
    def forward(self, x):
        y = self.a(x)
        if x.shape[1] % 2:
            y = F.pad(y, (0, 0, 0, 1))
        return y.unflatten(1, (y.shape[1] // 2, 2)).sum(2) if x.shape[0] != 1 else y


class Noting(Around):
    """Keeps a running mean, in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        y = self.a(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * y.mean((0, 1)))
        return y - self.mean


class Tied(Around):
    def __init__(self):
        super().__init__(nn.Linear(8, 8))
        self.other = nn.Linear(8, 8, bias=False)
        self.other.weight = self.layer.weight

    def forward(self, x):
        return self.other(self.layer(self.a(x)))


class Branching(nn.Module):
    """By a value: no graph has it."""

    def __init__(self, width=8):
        super().__init__()
        self.width, self.a = width, DynamicLinear(width, width)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else -self.a(x)


class Experts(Around):
    """Sorts places by the sign of what they hold, and has an expert for each, as mixtures of transformers do."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.randn(2, 8, 8))

    def forward(self, x):
        flat = self.a(x).flatten(0, 1)
        side = (flat.detach().sum(1) > 0).long()
        order = side.argsort(stable=True)
        ends = torch.stack([(side == 0).sum(), (side >= 0).sum()]).int()
        return torch._grouped_mm(flat[order], self.experts, offs=ends)[order.argsort()].view_as(x)


class Steps(Around):
    """Works in sizes that are no whole numbers at first."""

    def forward(self, x):
        return self.a(x)[:, : max(1, int(x.shape[1] / 2))]


NETWORKS = {
    "LSTM": lambda: nn.Sequential(nn.Linear(8, 8), nn.LSTM(8, 4, 2, batch_first=True, dropout=0.5)),
    "attention": lambda: Attending(nn.MultiheadAttention(8, 2, 0.3, batch_first=True)),
    "transformer layer": lambda: Around(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "spectral norm": lambda: Around(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))),
    "weight norm": lambda: Around(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
    "batch norm and dropout": lambda: Around(nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5))),
    "functions": Functional,
    "outputs": Outputs,
    "sizes": Deciding,
    "a buffer": Noting,
    "a tie": Tied,
    "experts": Experts,
    "parts of sizes": Steps,
}


def frozen_of(network):
    torch.manual_seed(0)
    return lift(network, where="a" if hasattr(network, "a") else "0").mutator(context=VectorContext(4, 8)).freeze({})


def inputs(batch=3, length=5):
    return torch.randn(batch, length, 8), torch.randn(batch, 4)


def saved(network, folder, *given):
    network(*given)
    export.save(network, folder)
    return nni_dynconv.load(folder)


def stepped(network, given):
    torch.manual_seed(1)
    network.train()(*given)
    outputs = torch.utils._pytree.tree_leaves(network(*given))
    tensors = [one for one in outputs if isinstance(one, torch.Tensor)]
    sum(one.square().mean() for one in tensors).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    return outputs, network.state_dict()


@pytest.mark.whole
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_in_both_modes_and_learns_alike(name, tmp_path):
    network = frozen_of(NETWORKS[name]())
    loaded = saved(network, tmp_path, *inputs())
    for batch in (1, 2, 7):
        given = inputs(batch)
        torch.testing.assert_close(loaded.eval()(*given), network.eval()(*given), rtol=1e-5, atol=1e-5)
    given = inputs()
    (ours, state), (theirs, other) = stepped(network, given), stepped(loaded, given)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(other), {key: state[key] for key in other}, rtol=1e-5, atol=1e-5)


def test_what_is_held_fixed_stays_so(tmp_path):
    """A base, the controller or a layer that did not learn used to be refused: "read back, its gradient is new"."""
    network = frozen_of(NETWORKS["batch norm and dropout"]())
    fixed = [
        *network.source.controller.parameters(),
        *network.source.bases.parameters(),
        network.network.layer[0].weight,
    ]
    for one in fixed:
        one.requires_grad_(False)
    loaded = saved(network, tmp_path, *inputs())
    ours = {name for name, one in network.named_parameters() if not one.requires_grad}
    assert len(ours) == len(fixed) > 5
    assert {name for name, one in loaded.named_parameters() if not one.requires_grad} == ours


def test_ids_are_kept_for_the_trial(tmp_path):
    network, ids, context = frozen_of(Embedding()), torch.tensor([[1, 10], [3, 0]]), torch.randn(2, 4)
    loaded = saved(network, tmp_path, ids, context)
    torch.testing.assert_close(loaded.eval()(ids, context), network.eval()(ids, context))


def test_an_input_by_keyword_is_one_that_was_there_when_it_was_saved(tmp_path):
    network = frozen_of(Outputs()).eval()
    (x, c), scale = inputs(), torch.tensor(3.0)
    network(x, c, scale=scale)
    export.save(network, tmp_path)
    loaded = nni_dynconv.load(tmp_path)
    torch.testing.assert_close(loaded(x, c, scale=scale), network(x, c, scale=scale))
    with pytest.raises(ExportError, match="was saved with `scale`, and cannot do without"):
        loaded(x, c)


def test_sizes_that_were_decided_by_are_told_and_not_guessed(tmp_path):
    network = frozen_of(Deciding()).eval()
    loaded = saved(network, tmp_path, *inputs(length=5))
    torch.testing.assert_close(loaded(*inputs(2, 7)), loaded(*inputs(2, 7)), rtol=9, atol=9)  # of the same way
    with pytest.raises(ShapeError, match="decides by the sizes of its inputs, and with these it goes a way"):
        loaded(*inputs(length=6))
    with pytest.raises(ShapeError, match="has the size 8 along axis 2"):
        loaded(torch.randn(3, 5, 9), torch.randn(3, 4))


def test_a_module_that_is_called_with_made_parameters_comes_back(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return x * self.factor

    network = lift(nn.Sequential(Scaled(), nn.ReLU()), where="0").mutator(context=VectorContext(4, 8)).freeze({}).eval()
    assert isinstance(network.network[0], DynamicCall)
    loaded = saved(network, tmp_path, *inputs())
    torch.testing.assert_close(loaded(*inputs(1)), loaded(*inputs(1)), rtol=9, atol=9)
    given = inputs(2)
    torch.testing.assert_close(loaded(*given), network(*given))


def test_a_forward_that_no_graph_holds_is_kept_by_its_class_for_who_trusts_it(tmp_path):
    from nni.nas.nn.pytorch import ModelSpace

    from nni_dynconv import DynamicWeightMutator

    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.inside = Branching()

        def forward(self, x):
            return self.inside(x)

    network = DynamicWeightMutator(Space()).freeze({}).eval()
    network.network = network.network.inside
    network.source.sites = dict(network.source.sites)
    loaded_class = f"{Branching.__module__}:Branching"
    export.save(network, tmp_path, example=torch.randn(2, 3, 8))
    with pytest.raises(ExportError, match=f"needs the class `{loaded_class}`"):
        nni_dynconv.load(tmp_path)
    loaded = nni_dynconv.load(tmp_path, trust=[Branching.__module__])
    for x in (torch.ones(2, 3, 8), -torch.ones(2, 3, 8)):
        torch.testing.assert_close(loaded(x), network(x))
    assert Branching.__module__ in sys.modules


class Settings:
    """As configurations of transformers: made again of what they tell of themselves."""

    def __init__(self, width):
        self.width = width

    def to_dict(self):
        return {"width": self.width}

    @classmethod
    def from_dict(cls, known):
        return cls(**known)


class Configured(nn.Module):
    """Its forward draws by numpy, as masks of speech models do, and decides by it: no graph can hold it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.a = nn.Linear(8, config.width)

    def forward(self, x):
        y = self.a(x)
        if self.training and float(y.sum()) != 0:
            y = y * torch.from_numpy(np.random.rand(*y.shape)).float()  # noqa: NPY002
        return y


def test_a_network_is_kept_by_settings_of_a_class_of_ones_own(tmp_path):
    network = frozen_of(Configured(Settings(6)))
    network(*inputs())
    with pytest.warns(UserWarning, match="saved by its class"):
        export.save(network, tmp_path)
    with pytest.raises(ExportError, match="trust="):
        nni_dynconv.load(tmp_path)
    loaded, given = nni_dynconv.load(tmp_path, trust=[__name__]), inputs()
    torch.testing.assert_close(loaded(*given), network.eval()(*given))
    assert loaded.network.config.width == 6


def test_sizes_that_numpy_counted_are_written(tmp_path):
    """Spaces that compute with numpy, as NAS-Bench-101 does, could not be saved."""
    network = frozen_of(nn.Sequential(nn.Linear(np.int64(8), np.int64(6))))
    assert saved(network, tmp_path, *inputs())(*inputs()).shape == (3, 5, 6)


@pytest.mark.whole
def test_large_parts_of_a_layer_are_no_sizes(tmp_path):
    """A split into 2,400,000 and 1,600 values was taken for a tensor of 2,400,000 x 1,600."""
    network = frozen_of(nn.Sequential(nn.Linear(1500, 1600)))
    loaded = saved(network, tmp_path, torch.randn(2, 1500), torch.randn(2, 4))
    assert loaded.source.sites["0"].specs[0].shape == (1600, 1500)


def test_nothing_to_try_it_on_is_told_with_the_line_to_write(tmp_path):
    with pytest.raises(
        ExportError, match=r"Call it once, or .*`export.save\(network, folder, example=\(x, context\)\)`"
    ):
        export.save(frozen_of(Functional()), tmp_path / "net")
    assert not (tmp_path / "net").exists()
    export.save(frozen_of(Functional()), tmp_path / "net", example=inputs())


class Flattening(Around):
    def __init__(self):
        super().__init__(nn.Linear(40, 3))

    def forward(self, x):
        return self.layer(self.a(x).flatten(1))


def test_a_layer_behind_a_flattened_input_fixes_its_sizes_and_not_the_batch(tmp_path):
    """It was kept by its class, since no multiple of the sizes went through."""
    network = frozen_of(Flattening()).eval()
    loaded = saved(network, tmp_path, *inputs())
    for batch in (1, 6):
        given = inputs(batch)
        torch.testing.assert_close(loaded(*given), network(*given))
    with pytest.raises(ShapeError, match="has the size 5 along axis 1"):
        loaded(*inputs(length=6))
