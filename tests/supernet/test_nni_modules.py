"""NNI's own modules beside dynamic ops: defaults that nobody chose, choices that a sampler weighs, cells of its hub."""

from __future__ import annotations

import pytest
import torch
from often import by_default
from spaces import CHANNELS, conv, image

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas import strategy
from nni.nas.hub import pytorch as hub
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLayerNorm,
    MutableLinear,
    MutableMultiheadAttention,
)
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from nni_dynconv import DartsSampler, DynamicWeightMutator, EnasSampler, GdasSampler, RandomSampler, VectorContext, lift
from nni_dynconv.errors import SpaceError

every_sampler = pytest.mark.parametrize("sampler", [RandomSampler, EnasSampler, DartsSampler, GdasSampler])


class Plain(ModelSpace):
    """NNI's modules without choices."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice([conv(3), conv(1)], label="op")
        self.stem, self.norm = MutableConv2d(1, CHANNELS, 1), MutableBatchNorm2d(CHANNELS)
        self.layer_norm, self.head = MutableLayerNorm(CHANNELS), MutableLinear(CHANNELS, 8)
        self.attention = MutableMultiheadAttention(8, 2)

    def forward(self, x):
        x = self.norm(self.op(self.stem(x)))
        x = self.head(self.layer_norm(x.flatten(2).transpose(1, 2)))
        return self.attention(x, x, x)[0]


@every_sampler
def test_what_is_no_choice_is_what_was_given(sampler):
    """Default arguments used to be asked of NNI's own sampling under DARTS: `Need to call resample()`."""
    mutator = DynamicWeightMutator(Plain(), sampler=sampler(seed=0))
    mutator.reset()
    mutator(image()).sum().backward()
    assert mutator.space.norm.weight.grad is not None


class Widths(ModelSpace):
    """Widths, kernels and an expression of a choice."""

    def __init__(self):
        super().__init__()
        width, kernel = nni.choice("width", [2, 4]), nni.choice("kernel", [1, 3])
        self.conv = MutableConv2d(1, width, kernel, padding=kernel // 2)
        self.norm, self.head = MutableBatchNorm2d(width), MutableConv2d(width, CHANNELS, 1)
        self.dynamic, self.linear = conv(1), MutableLinear(CHANNELS, nni.choice("half", [2, 3]) * 2)

    def forward(self, x):
        return self.linear(self.dynamic(self.head(self.norm(self.conv(x)))).mean((2, 3)))


@every_sampler
def test_choices_of_nnis_modules_are_searched_and_freeze(sampler):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Widths(), sampler=sampler(seed=0)).eval()
    mutator.reset()
    mutator(image()).square().sum().backward()
    if mutator.sampler.learns == "gradient":
        assert all(one.grad.abs().sum() > 0 for one in mutator.sampler.parameters())
    for width in (2, 4):
        sample = {"width": width, "kernel": 3, "half": 2}
        with mutator.using(sample):
            y = mutator(image())
        torch.testing.assert_close(mutator.freeze(sample)(image()), y)


def test_the_mixture_is_that_of_slices():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Widths(), sampler=DartsSampler(seed=0)).eval()
    mutator.reset()
    shares = mutator.sampler.relaxed("half")
    layer, seen = mutator.space.linear, []
    layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    mutator(image())
    ((x, y),) = seen
    expected = shares[0] * nn.functional.pad(x @ layer.weight[:4].T + layer.bias[:4], (0, 2))
    torch.testing.assert_close(y, expected + shares[1] * (x @ layer.weight.T + layer.bias))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: MutableConv2d(CHANNELS, CHANNELS, 1, stride=nni.choice("a", [1, 2])), "stride"),
        (lambda: MutableConv2d(CHANNELS, CHANNELS, nni.choice("a", [1, 3]), padding="same"), "kernel_size"),
        (lambda: MutableConv2d(CHANNELS, CHANNELS, nni.choice("a", [(1, 3), (3, 1)]), padding=1), "kernel_size"),
        (lambda: MutableConv2d(CHANNELS, CHANNELS, 3, padding=nni.choice("a", [0, 1])), "padding"),
        (lambda: MutableBatchNorm2d(CHANNELS, eps=nni.choice("a", [1e-5, 1e-3])), "eps"),
    ],
)
def test_what_nnis_module_cannot_mix_is_refused_by_darts_alone(make, argument):
    class Space(Widths):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(self.head, make())

    with pytest.raises(SpaceError, match=rf"`Mutable\w+` with `nni.choice` for `{argument}` is not supported by a"):
        DynamicWeightMutator(Space(), sampler=DartsSampler())
    mutator = DynamicWeightMutator(Space(), sampler=GdasSampler(seed=0))
    mutator.reset()
    mutator(image()).sum().backward()


# Cells under NNI's own one-shot strategies

SEARCHES = [strategy.DARTS, strategy.GumbelDARTS, strategy.RandomOneShot]


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("search", by_default(strategy.DARTS, of=SEARCHES, otherwise="slow"))
@pytest.mark.parametrize("name", ["DARTS", pytest.param("PNAS", marks=pytest.mark.slow)])
def test_lifted_cells_of_the_hub_run_under_nnis_strategies(name, search):
    """NNI's supernet asks a cell's factory for operators of its own, which used to be no site: a `ScopeError`."""
    torch.manual_seed(0)
    space = getattr(hub, name)(width=2, num_cells=3, dataset="cifar")
    mutator = lift(space).mutator(sampler=False, context=VectorContext(3, 4))
    search().mutate_model(space)
    modules = [one for one in space.modules() if isinstance(one, BaseSuperNetModule)]
    drawn, found = {}, {}
    for module in modules:
        drawn |= module.resample(drawn)
    x, context = torch.randn(2, 3, 16, 16), torch.randn(2, 3)
    y = space((x, context))
    (y[0] if isinstance(y, tuple) else y).sum().backward()
    assert any(one.grad is not None for one in mutator.source.bases.parameters())
    for module in modules:
        found |= module.export(found)
    y = mutator.freeze(found).eval()(x, context)
    assert torch.as_tensor(y).shape == (2, 10)
