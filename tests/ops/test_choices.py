"""`nni.choice` among an op's arguments: the choice changes what is made, in supernets, frozen networks and files."""

from __future__ import annotations

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import model_context
from torch import nn

import nni_dynconv
from nni_dynconv import (
    DartsSampler,
    DynamicConv2d,
    DynamicLinear,
    DynamicSepConv,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
    export,
)
from nni_dynconv.errors import SampleError, ScopeError, SpaceError
from nni_dynconv.ops.choices import ChoiceOp


class Widths(ModelSpace):
    """Width, kernel and dilation are chosen; the width is the next layers' input."""

    def __init__(self):
        super().__init__()
        width, kernel = nni.choice("width", [4, 6]), nni.choice("kernel", [3, 5])
        self.first = DynamicConv2d(1, width, kernel, padding=kernel // 2)
        self.second = LayerChoice(
            {
                "separable": DynamicSepConv(width, width, 3, dilation=nni.choice("dilation", [1, 2])),
                "skip": nn.Identity(),
            },
            label="second",
        )
        self.head = DynamicLinear(width, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


SAMPLE = {"width": 6, "kernel": 5, "second": "separable", "dilation": 2}


def needed(width, kernel, second, dilation):
    separable = width * 9 + width * width if second == "separable" else 0
    return width * kernel * kernel + width + separable + 2 * width + 2


def make(sampler=None, **options):
    torch.manual_seed(0)
    return DynamicWeightMutator(Widths(), sampler=sampler or RandomSampler(seed=0), **options)


def inputs(batch=3):
    return torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_choice_changes_the_number_of_weights_that_are_made():
    mutator = make()
    for _ in range(8):
        sample = mutator.reset()
        assert mutator.plan().num_generated == needed(**sample)
        assert mutator(inputs()).shape == (3, 2)


def test_sites_are_named_by_their_choice():
    names = [site.name for site in make().plan(SAMPLE)]
    assert names == ["first.width=6,kernel=5", "second/separable.width=6,dilation=2", "head.width=6"]


@pytest.mark.parametrize("context", [None, VectorContext(5, dim=8)])
@pytest.mark.parametrize("base", ["none", "learned"])
def test_a_frozen_network_does_what_the_supernet_does(context, base, tmp_path):
    mutator = make(context=context, base=base).eval()
    given_context = None if context is None else torch.randn(3, 5)
    for _ in range(3):
        sample = mutator.reset()
        network = mutator.freeze(sample)
        expected = mutator(inputs(), context=given_context)
        torch.testing.assert_close(network(inputs(), given_context), expected)
        assert isinstance(network.network.first, DynamicConv2d)
        assert sum(site.num_generated for site in network.source.sites.values()) == needed(**sample)
        export.save(network, tmp_path)
        torch.testing.assert_close(nni_dynconv.load(tmp_path)(inputs(), given_context), expected)


@pytest.mark.parametrize("sampler", [GdasSampler, EnasSampler])
def test_samplers_learn_which_arguments_are_good(sampler):
    mutator = make(sampler(seed=1))  # which draws each candidate at least once
    for _ in range(4):
        sample = mutator.reset()
        loss = mutator(inputs()).square().mean()
        loss.backward()
        if sampler is EnasSampler:
            mutator.sampler.observe(sample, -loss.item())
        assert mutator.plan().num_generated == needed(**sample)
    if sampler is GdasSampler:
        gradients = [one.grad for one in mutator.parameters_by_role()["architecture"]]
        assert all(one is not None and one.any() for one in gradients)


def test_a_mixture_of_widths_is_refused_by_name():
    with pytest.raises(
        SpaceError, match="Module `first`: `DynamicConv2d` with `nni.choice` arguments is not supported"
    ):
        make(DartsSampler())


def test_nni_builds_one_architecture_directly():
    with model_context(SAMPLE):
        network = Widths()
    assert network.first.kernel_size == (5, 5) and network.head.in_features == 6
    frozen = Widths().freeze(SAMPLE)
    assert frozen.second.dilation == (2, 2) and frozen.first.padding == (2, 2)


def test_a_static_argument_of_an_op_stays_an_op():
    assert isinstance(DynamicConv2d(1, 2, 3), DynamicConv2d)
    chosen = DynamicConv2d(1, 2, nni.choice("k", [3, 5]))
    assert isinstance(chosen, ChoiceOp) and "k=[3, 5]" in repr(chosen)


def test_each_variant_has_a_normalisation_of_its_own():
    op = DynamicSepConv(2, nni.choice("out", [4, 6]), 3)
    assert [one.norm.num_features for one in op.variants.values()] == [4, 6]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((4, 4, (nni.choice("k", [3, 5]), 3)), r"A choice inside of .* Let the choice be of whole tuples"),
        (
            (4, nni.choice("out", [4, 6]), 3, 1, 0, 1, 4),
            r"cannot be built for the choice {'out': 6}: .*`out_channels` is 6, which `groups=4`",
        ),
        ((4, nni.choice("out", list(range(1, 300))), 3), r"has 299 variants, more than 256"),
        ((4, nni.choice("a.b", [4, 8]), 3, 1, nni.choice("p", ["s.a", "s_a"])), r"candidates that are written alike"),
        ((4, nni.uniform("out", 1, 2), 3), r"label `out` is a Numerical, but must be chosen among candidates"),
    ],
    ids=["tuple", "groups", "many", "names", "numerical"],
)
def test_what_cannot_be_chosen_is_refused_in_words(arguments, text):
    with pytest.raises(SpaceError, match=text):
        DynamicConv2d(*arguments)


def test_a_sample_without_the_label_is_refused_in_words():
    op = DynamicConv2d(1, 2, nni.choice("k", [3, 5]))
    for sample in ({}, {"k": 4}):
        with pytest.raises(
            SampleError, match=r"DynamicConv2d needs a candidate for each of {'k': \[3, 5\]}, but .* is"
        ):
            op.at(sample)


def test_a_call_that_chooses_nothing_is_refused_in_words():
    with pytest.raises(
        ScopeError, match="DynamicConv2d needs one candidate of `k`, but none is chosen. Call the network"
    ):
        DynamicConv2d(1, 2, nni.choice("k", [3, 5]))(inputs())
