"""A mixture whose convolutions run as one equals the sum of its candidates' outputs, in value and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import Cell, LayerChoice, ModelSpace
from spaces import CHANNELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import DartsSampler, DynamicWeightMutator, VectorContext
from nni_dynconv.ops import DynamicConv1d, DynamicConv2d, DynamicConv3d
from nni_dynconv.sites import scope
from nni_dynconv.sites.batch import Blocks
from nni_dynconv.sites.scope import Scope
from nni_dynconv.supernet import mixture
from nni_dynconv.supernet.mixture import fusable, run_mixture, without_fusion

SMALL = torch.zeros(4, 4, 9, 9)
CONVS = {1: DynamicConv1d, 2: DynamicConv2d, 3: DynamicConv3d}


@pytest.fixture(autouse=True, scope="module")
def _small_inputs_are_worth_it():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "WORTH", 0)
        yield


def conv(K, dilation=1, **options):
    return DynamicConv2d(4, 4, K, padding=dilation * (K // 2), dilation=dilation, **options)


def run(candidates, lead=(), counts=None, batch=4, seed=0):
    """Run a mixture on its own and return output and gradients of input, factors and every weight, as one list."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    made = {}
    for number, one in enumerate(candidates):
        if hasattr(one, "weight_specs"):
            one.site = str(number)
            made[one.site] = {spec.name: leaf(*lead, *spec.shape) for spec in one.weight_specs()}
    rank = next((one.rank for one in candidates if hasattr(one, "rank")), 2)
    x, factors = leaf(batch, 4, *([9] * rank)), leaf(len(candidates))
    blocks = None if counts is None else Blocks(torch.arange(len(counts)), counts)
    with scope.enter(Scope(None, lambda name, alone: made, blocks=blocks)):
        y = run_mixture(candidates, factors, x)
    leaves = [x, factors, *(tensor for weights in made.values() for tensor in weights.values())]
    loss = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
    return [y, *torch.autograd.grad(loss, leaves, allow_unused=True)]


def check(candidates, **options):
    with without_fusion():
        expected = run(candidates, **options)
    torch.testing.assert_close(run(candidates, **options), expected)


@st.composite
def mixtures(draw):
    """Convolutions of one shift, stride and groups, and of any kernel, dilation and bias, with others among them."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    stride, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4]))
    further = draw(st.integers(0, 1))  # padding beyond what keeps the size
    candidates: list[nn.Module] = []
    for _ in range(draw(st.integers(2, 5))):
        kernel, dilation = [draw(st.sampled_from([1, 3, 5])) for _ in range(rank)], draw(st.integers(1, 2))
        padding = [dilation * (K - 1) // 2 + further for K in kernel]
        bias = draw(st.booleans())
        candidates.append(CONVS[rank](4, 4, kernel, stride, padding, dilation, groups, bias))
    if further == 0 and stride == 1 and draw(st.booleans()):
        candidates.insert(draw(st.integers(0, len(candidates))), nn.Identity())
    return candidates


@settings(max_examples=40, deadline=None)
@given(candidates=mixtures(), sets=st.sampled_from(["shared", "per sample", "blocks"]))
def test_convolutions_run_as_one_equal_the_sum_of_outputs(candidates, sets):
    lead, counts = {"shared": ((), None), "per sample": ((4,), None), "blocks": ((2,), (1, 3))}[sets]
    check(candidates, lead=lead, counts=counts)


def test_four_convolutions_are_one_call(monkeypatch):
    calls = []
    compute = DynamicConv2d.compute
    monkeypatch.setattr(DynamicConv2d, "compute", lambda op, *rest: calls.append(op.kernel_size) or compute(op, *rest))
    candidates = [conv(1), conv(3), conv(5), conv(3, 2)]
    run(candidates)
    assert calls == [(5, 5)]
    with without_fusion():
        run(candidates)
    assert len(calls) == 5


def test_a_kernel_with_more_gaps_than_taps_runs_alone():
    assert fusable([conv(3), conv(5), conv(5, 2), nn.MaxPool2d(3, 1, 1)], SMALL) == [[0, 1]]
    assert fusable([conv(1), conv(5)], SMALL) == [[0, 1]]
    assert fusable([conv(1), conv(3, 2)], SMALL) == []


def test_small_inputs_are_not_worth_mixing_kernels(monkeypatch):
    monkeypatch.setattr(mixture, "WORTH", 1 << 20)
    candidates = [conv(3), conv(5)]
    assert fusable(candidates, SMALL) == fusable(candidates, SMALL[:0]) == []
    assert fusable(candidates, torch.zeros(4, 4, 128, 128)) == [[0, 1]]


def test_uneven_kernels_run_as_one_where_they_end_alike():
    candidates = [DynamicConv2d(4, 4, (2, 4), padding=(1, 2)), DynamicConv2d(4, 4, (4, 4), padding=2)]
    assert fusable(candidates, SMALL) == [[0, 1]]
    check(candidates)


def test_same_and_valid_are_numbers_where_they_are_even():
    candidates = [DynamicConv2d(4, 4, 3, padding="same"), conv(3), DynamicConv2d(4, 4, 1, padding="valid")]
    assert fusable(candidates, SMALL) == [[0, 1, 2]]
    check(candidates)
    assert fusable([DynamicConv2d(4, 4, 2, padding="same"), DynamicConv2d(4, 4, 2, padding="same")], SMALL) == []


class Doubled(DynamicConv2d):
    def compute(self, x, weights, counts=None):
        return 2 * super().compute(x, weights, counts)


def watched():
    one = conv(3)
    one.register_forward_hook(lambda module, args, output: 2 * output)
    return one


def replaced():
    one = conv(3)
    one.forward = lambda x, params=None, counts=None: x
    return one


@pytest.mark.parametrize(
    "make",
    [
        watched,
        replaced,
        lambda: Doubled(4, 4, 3, padding=1),
        lambda: conv(3, groups=2),
        lambda: conv(3, padding_mode="reflect"),
        lambda: nn.Sequential(conv(3)),
    ],
    ids=["a hook", "another forward", "a subclass", "other groups", "other padding", "a container"],
)
def test_what_is_no_plain_convolution_runs_itself(make):
    candidates = [conv(3), conv(3), make()]
    assert fusable(candidates, SMALL) == [[0, 1]]
    if not isinstance(candidates[-1], nn.Sequential):
        check(candidates)


def test_other_strides_channels_and_sizes_of_the_output_do_not_meet():
    others = [conv(3, stride=2), DynamicConv2d(4, 8, 3, padding=1), DynamicConv2d(4, 4, 3), DynamicConv1d(4, 4, 3)]
    assert fusable([conv(3), *others], SMALL) == []


# In a supernet


class Mixed(ModelSpace):
    def __init__(self):
        super().__init__()
        candidates = {"3": self.conv(3), "5": self.conv(5), "1": self.conv(1), "pool": nn.AvgPool2d(3, 1, 1)}
        self.op = LayerChoice(candidates, label="op")

    @staticmethod
    def conv(K):
        return DynamicConv2d(CHANNELS, CHANNELS, K, padding=K // 2)

    def forward(self, x):
        return self.op(x)


class MixedCell(Mixed):
    def __init__(self):
        super().__init__()
        candidates = {f"conv{K}": lambda *place, K=K: self.conv(K) for K in (1, 3, 5)}
        self.cell = Cell(candidates, num_nodes=2, num_ops_per_node=1, num_predecessors=1, label="cell")

    def forward(self, x):
        return self.cell([self.op(x)])


class Checkpointed(Mixed):
    def forward(self, x):
        return checkpoint(self.op, x, use_reentrant=False)


@pytest.mark.parametrize("space", [Mixed, MixedCell, Checkpointed])
@pytest.mark.parametrize("context", [None, 5])
def test_a_supernet_gives_the_same_values_and_gradients(space, context, monkeypatch):
    torch.manual_seed(0)
    encoder = None if context is None else VectorContext(context, dim=8)
    mutator = DynamicWeightMutator(space(), sampler=DartsSampler(0), context=encoder).double()
    for alpha in mutator.sampler.alphas:
        nn.init.normal_(alpha)
    mutator.reset()
    x = torch.randn(3, CHANNELS, 7, 7, dtype=torch.float64)
    c = None if context is None else torch.randn(3, context, dtype=torch.float64)
    calls = []
    compute = DynamicConv2d.compute
    monkeypatch.setattr(DynamicConv2d, "compute", lambda op, *rest: calls.append(op) or compute(op, *rest))

    def found():
        mutator.zero_grad()
        y = mutator(x, context=c)
        y.square().sum().backward()
        return {"y": y, **{name: parameter.grad for name, parameter in mutator.named_parameters()}}

    fused, few = found(), len(calls)
    with without_fusion():
        torch.testing.assert_close(fused, found())
    assert few < len(calls) - few
    assert fused["sampler.alphas.0"].abs().min() > 0


@pytest.mark.whole
def test_a_mixture_goes_through_the_compiler_in_one_graph():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Mixed(), sampler=DartsSampler(0))
    mutator.reset()
    x = torch.randn(3, CHANNELS, 7, 7)
    compiled = torch.compile(mutator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mutator(x), rtol=1e-4, atol=1e-5)


def test_a_mixture_that_ran_without_gradient_first_trains():
    mutator = DynamicWeightMutator(Mixed(), sampler=DartsSampler(0))
    mutator.reset()
    x = torch.randn(3, CHANNELS, 9, 9)
    with torch.inference_mode():
        mutator(x)
    mutator(x).sum().backward()
    assert mutator.sampler.alphas[0].grad is not None


def test_factors_of_another_precision_serve():
    mutator = DynamicWeightMutator(Mixed(), sampler=DartsSampler(0)).double()
    mutator.sampler.float()
    mutator.reset()
    x = torch.randn(3, CHANNELS, 7, 7, dtype=torch.float64)
    fused = mutator(x)
    with without_fusion():
        torch.testing.assert_close(fused, mutator(x))
