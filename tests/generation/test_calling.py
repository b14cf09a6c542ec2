"""Frozen and loaded networks are called as the supernet is; what they do not take is refused in words of theirs."""

from __future__ import annotations

import collections
import functools

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from nni_dynconv import (
    DynamicConv2d,
    DynamicLinear,
    DynamicWeightMutator,
    FeatureMapContext,
    OwnInputContext,
    RandomSampler,
    SequenceContext,
    VectorContext,
    export,
    lift,
    load,
)
from nni_dynconv.errors import ContextError, ScopeError
from nni_dynconv.generation.calling import Call, Takes, takes_of

Named = collections.namedtuple("Named", "rgb depth")


class Base(ModelSpace):
    def __init__(self):
        super().__init__()
        self.a = LayerChoice([DynamicConv2d(1, 4, 3, padding=1), DynamicConv2d(1, 4, 1)], label="a")
        self.b = DynamicConv2d(2, 4, 1)


class TakesPair(Base):
    def forward(self, pair):
        rgb, depth = pair
        return self.a(rgb) + self.b(depth)


class TakesNamed(Base):
    def forward(self, named):
        return self.a(named.rgb) + self.b(named.depth)


class TakesDict(Base):
    def forward(self, batch):
        return self.a(batch["rgb"]) + self.b(batch["depth"])


class TakesTwo(Base):
    def forward(self, rgb, depth):
        return self.a(rgb) + self.b(depth)


class TakesOption(Base):
    def forward(self, rgb, depth=None):
        return self.a(rgb) if depth is None else self.a(rgb) + self.b(depth)


class TakesAny(Base):
    def forward(self, *inputs):
        return self.a(inputs[0]) + self.b(inputs[1])


def planes(batch=2):
    return torch.randn(batch, 1, 6, 6), torch.randn(batch, 2, 6, 6)


def named(two):
    return {"rgb": two[0], "depth": two[1]}


# how the supernet is called, and how a frozen or loaded one may be
CALLS = {
    "tuple": (TakesPair, lambda m, two, c: m(two, context=c)),
    "tuple, c": (TakesPair, lambda m, two, c: m(two, c)),
    "(tuple, c)": (TakesPair, lambda m, two, c: m((two, c))),
    "list, c": (TakesPair, lambda m, two, c: m(list(two), c)),
    "[list, c]": (TakesPair, lambda m, two, c: m([list(two), c])),
    "named tuple as a tuple, c": (TakesPair, lambda m, two, c: m(Named(*two), c)),
    "named": (TakesNamed, lambda m, two, c: m(Named(*two), context=c)),
    "named, c": (TakesNamed, lambda m, two, c: m(Named(*two), c)),
    "(named, c)": (TakesNamed, lambda m, two, c: m((Named(*two), c))),
    "dict, c": (TakesDict, lambda m, two, c: m(named(two), c)),
    "dict": (TakesDict, lambda m, two, c: m(named(two), context=c)),
    "(dict, c)": (TakesDict, lambda m, two, c: m((named(two), c))),
    "a, b": (TakesTwo, lambda m, two, c: m(*two, context=c)),
    "a, b, c": (TakesTwo, lambda m, two, c: m(*two, c)),
    "(a, b), c": (TakesTwo, lambda m, two, c: m(two, c)),
    "(a, b) and c by name": (TakesTwo, lambda m, two, c: m(two, context=c)),
    "((a, b), c)": (TakesTwo, lambda m, two, c: m((two, c))),
    "by names": (TakesTwo, lambda m, two, c: m(**named(two), context=c)),
    "one by name": (TakesTwo, lambda m, two, c: m(two[0], depth=two[1], context=c)),
    "one by name, c": (TakesTwo, lambda m, two, c: m(two[0], c, depth=two[1])),
    "option": (TakesOption, lambda m, two, c: m(*two, context=c)),
    "option, c": (TakesOption, lambda m, two, c: m(*two, c)),
    "option by name": (TakesOption, lambda m, two, c: m(two[0], depth=two[1], context=c)),
    "any": (TakesAny, lambda m, two, c: m(*two, context=c)),
    "any, c": (TakesAny, lambda m, two, c: m(*two, c)),
}


def made(space, **options):
    torch.manual_seed(0)
    options = {"sampler": RandomSampler(seed=0), "context": VectorContext(3, dim=8), **options}
    mutator = DynamicWeightMutator(space(), **options).eval()
    return mutator, mutator.reset()


def call_of(space, two):
    return {TakesPair: (two,), TakesNamed: (Named(*two),), TakesDict: (named(two),)}.get(space, two)


def expected_of(mutator, space, two, c, **more):
    return mutator(*call_of(space, two), context=c, **more)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Each space's network, frozen and read from a file, and what the supernet answers."""

    @functools.cache
    def of(space):
        mutator, sample = made(space)
        two, c = planes(), torch.randn(2, 3)
        expected = expected_of(mutator, space, two, c)
        network = mutator.freeze(sample)
        network(*call_of(space, two), context=c)
        folder = tmp_path_factory.mktemp(space.__name__)
        export.save(network, folder)
        return (network, load(folder)), two, c, expected

    return of


@pytest.mark.parametrize("name", CALLS)
def test_a_network_is_called_as_the_supernet_is(name, forms):
    """A tuple was always taken apart, and names and further inputs were refused in Python's words."""
    space, call = CALLS[name]
    networks, two, c, expected = forms(space)
    for network in networks:
        torch.testing.assert_close(call(network, two, c), expected)


@pytest.mark.parametrize("space", [TakesPair, TakesNamed, TakesDict, TakesTwo, TakesOption])
def test_an_index_sorts_the_samples_of_every_structure(space, tmp_path):
    mutator, sample = made(space)
    two, c, index = planes(4), torch.randn(3, 3), torch.tensor([2, 0, 2, 1])
    expected = expected_of(mutator, space, two, c[index])
    torch.testing.assert_close(expected_of(mutator, space, two, c, index=index), expected, atol=1e-5, rtol=1e-4)
    network = mutator.freeze(sample)
    export.save(network, tmp_path)
    for one in (network, load(tmp_path)):
        torch.testing.assert_close(one(*call_of(space, two), context=c, index=index), expected, atol=1e-5, rtol=1e-4)


class Recurrent(ModelSpace):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), DynamicLinear(4, 2)

    def forward(self, sequences):
        return self.head(self.gru(sequences)[1][-1])


class Packed(nn.Module):
    out_dim = 4

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, context):
        return self.gru(context)[1][-1]


def sequences(*lengths):
    return pack_sequence([torch.randn(n, 3) for n in lengths], enforce_sorted=False)


def test_packed_sequences_are_inputs_and_contexts():
    mutator, sample = made(Recurrent, context=Packed())
    x, c = sequences(2, 5, 3), sequences(4, 1, 6)
    expected = mutator(x, context=c)
    network = mutator.freeze(sample)
    torch.testing.assert_close(network(x, c), expected)
    torch.testing.assert_close(network((x, c)), expected)


@pytest.mark.parametrize("index", [[1, 0, 1], [0, 0, 1], [2, 1, 0], [1, 1, 1]])
def test_an_index_sorts_packed_sequences(index):
    """Sorted as tensors, their lengths and orders would be taken for samples."""
    mutator, sample = made(Recurrent, context=Packed())
    x, c = sequences(2, 5, 3), sequences(4, 1, 6)
    index = torch.tensor(index)
    padded, lengths = pad_packed_sequence(c, batch_first=True)
    rows = [padded[i : i + 1, : lengths[i]] for i in index.tolist()]
    samples, sizes = pad_packed_sequence(x, batch_first=True)
    expected = torch.cat([mutator(samples[i : i + 1, : sizes[i]], context=rows[i]) for i in range(3)])
    for one in (mutator, mutator.freeze(sample)):
        torch.testing.assert_close(one(x, context=c, index=index), expected, atol=1e-5, rtol=1e-4)


def test_an_index_sorts_packed_outputs_back():
    class Passes(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = DynamicLinear(1, 1)

        def forward(self, x, sequences):
            return self.op(x), sequences

    mutator, _ = made(Passes)
    given = sequences(2, 5, 3)
    _, found = mutator(torch.ones(3, 1), given, context=torch.randn(2, 3), index=torch.tensor([1, 0, 1]))
    assert isinstance(found, PackedSequence)
    for ours, theirs in zip(pad_packed_sequence(found), pad_packed_sequence(given), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_lifted_network_of_two_inputs_is_frozen_saved_and_loaded(tmp_path):
    """The space around it takes any inputs, which could not be traced."""
    torch.manual_seed(0)
    network = nn.Bilinear(2, 3, 4)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix = nn.Conv2d(1, 2, 3), network

        def forward(self, x, y):
            return self.mix(self.conv(x).mean((2, 3)), y)

    mutator = lift(Two(), base="learned").mutator(context=VectorContext(3, 8)).eval()
    x, y, c = torch.randn(2, 1, 5, 5), torch.randn(2, 3), torch.randn(2, 3)
    frozen = mutator.freeze({})
    export.save(frozen, tmp_path, example=(x, y, c))
    for one in (frozen, load(tmp_path)):
        torch.testing.assert_close(one(x, y, c), mutator(x, y, context=c))


@pytest.mark.parametrize(
    ("takes", "args", "kwargs", "call"),
    [
        (Takes(("x",), 1), ("x", None), {}, Call(("x",), {}, None)),
        (Takes(("x",), 1), ("x", "c", "i"), {}, Call(("x",), {}, "c", "i")),
        (Takes(("x",), 1), ("x", "c"), {"index": "i"}, Call(("x",), {}, "c", "i")),
        (Takes(("x",), 1), ("c",), {"x": "x"}, Call((), {"x": "x"}, "c")),
        (Takes(("a", "b"), 2), ("a", "b"), {}, Call(("a", "b"), {}, None)),
        (Takes((), 0, any_number=True), ("x",), {}, Call(("x",), {}, None)),
    ],
)
def test_a_call_is_taken_apart(takes, args, kwargs, call):
    assert takes.call(args, kwargs, wanted=True) == call


def test_what_a_forward_takes_is_read_off_it():
    assert takes_of(TakesOption()) == Takes(("rgb", "depth"), 1)
    assert takes_of(TakesAny()) == Takes((), 0, any_number=True)


# Contexts that do not fit


class Own(nn.Module):
    """An encoder of somebody's own."""

    out_dim = 8

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, context):
        return self.layer(context)


WRONG = {
    "vector of another length": (
        lambda: VectorContext(3, 8),
        torch.zeros(2, 4),
        r"VectorContext takes .*D = 3.*\(2, 4\)",
    ),
    "vector of another rank": (lambda: VectorContext(3, 8), torch.zeros(2, 1, 3), r"VectorContext takes .*\(2, 1, 3\)"),
    "list for a vector": (
        lambda: VectorContext(3, 8),
        [[0.0] * 3] * 2,
        "VectorContext takes .*a tensor, but was given a list",
    ),
    "text for a vector": (lambda: VectorContext(3, 8), "abc", "VectorContext takes .*was given a str"),
    "array for a map": (
        lambda: FeatureMapContext(3, 8),
        torch.zeros(2, 3, 4, 4).numpy(),
        "FeatureMapContext .*as_tensor",
    ),
    "map of another rank": (lambda: FeatureMapContext(3, 8), torch.zeros(2, 3), r"FeatureMapContext takes .*\(2, 3\)"),
    "sequence of another length": (
        lambda: SequenceContext(3, 8),
        torch.zeros(2, 5, 4),
        r"SequenceContext .*\(2, 5, 4\)",
    ),
    "vector of another type": (
        lambda: VectorContext(3, 8),
        torch.zeros(2, 3).double(),
        r"context is torch.float64, but its",
    ),
    "numbers of another type": (lambda: VectorContext(3, 8), torch.zeros(2, 3).long(), "does not take this context"),
    "own layer, another length": (
        lambda: Own(nn.Linear(3, 8)),
        torch.zeros(2, 4),
        r"does not take this context, \(2, 4\)",
    ),
    "own layer, a list": (lambda: Own(nn.Linear(3, 8)), [0.0], "does not take this context, a list"),
    "an unknown id": (
        lambda: Own(nn.Embedding(5, 8)),
        torch.tensor([1, 7]),
        r"knows 5 ids, 0 .. 4, but the context names 7",
    ),
    "an id below zero": (lambda: Own(nn.Embedding(5, 8)), torch.tensor([1, -1]), r"knows 5 ids.*names -1"),
    "ids that are no numbers": (
        lambda: Own(nn.Embedding(5, 8)),
        torch.zeros(2),
        r"looks ids up.*float32.*context.long",
    ),
    "three for two samples": (
        lambda: VectorContext(3, 8),
        torch.zeros(3, 3),
        "context has 3 samples, but the input has 2",
    ),
}


class One(Base):
    def forward(self, x):
        return self.a(x)


FITTING = {FeatureMapContext: torch.zeros(2, 3, 4, 4), SequenceContext: torch.zeros(2, 5, 3)}


@pytest.mark.parametrize("name", WRONG)
def test_a_context_that_does_not_fit_is_refused_in_words_in_every_form(name, tmp_path):
    encoder, context, words = WRONG[name]
    mutator, sample = made(One, context=encoder())
    x, networks = planes()[0], [mutator.freeze(sample)]
    if not any(isinstance(one, nn.Embedding) for one in mutator.context.modules()):
        export.save(networks[0], tmp_path, example=(x, FITTING.get(type(mutator.context), torch.zeros(2, 3))))
        networks.append(load(tmp_path))
    with pytest.raises(ContextError, match=words):
        mutator(x, context=context)
    for one in networks:
        for call in (lambda: one(x, context), lambda: one((x, context))):  # noqa: B023
            with pytest.raises(ContextError, match=words) as caught:
                call()
            assert "mutator" not in str(caught.value) and "Graph" not in str(caught.value)


@pytest.mark.whole
@pytest.mark.parametrize("form", ["frozen", "loaded"])
def test_a_missing_or_unwanted_context_is_told_in_words_of_the_network(form, tmp_path):
    x, c = planes()[0], torch.zeros(2, 3)

    def network(**options):
        mutator, sample = made(One, **options)
        frozen = mutator.freeze(sample)
        if form == "frozen":
            return frozen
        frozen(x, c) if "context" not in options else frozen(x)
        export.save(frozen, tmp_path)
        return load(tmp_path)

    with pytest.raises(ContextError, match=r"missing: .*\(VectorContext\). Call `network\(x, context=c\)`"):
        network()(x)
    with pytest.raises(ContextError, match=r"no context. Call `network\(x, context=c, index=i\)`"):
        network()(x, index=torch.tensor([0, 1]))
    for call in (lambda one: one(x, c), lambda one: one(x, context=c)):
        with pytest.raises(ContextError, match=r"made from none. Leave it out: `network\(x\)`"):
            call(network(context=None))
        with pytest.raises(ContextError, match=r"own input \(OwnInputContext\). Call `network\(x\)`"):
            call(network(context=OwnInputContext(8)))
    assert network(context=None)(x, None).shape == (2, 4, 6, 6)
    with pytest.raises(ScopeError, match=r"has no weights. Call the whole network, `network\(x, context\)`"):
        network().network(x)


class StaticFirst(Base):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.a(self.stem(x))


class Flat(Base):
    def forward(self, x):
        return self.a(x.relu())


@pytest.mark.parametrize("space", [One, StaticFirst, Flat])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_pair_whose_context_nobody_asked_for_is_refused(space, kind):
    """It died of what the first layer says of tuples."""
    mutator, sample = made(space, context=None)
    pair = kind((planes()[0], torch.zeros(2, 3)))
    for call in (lambda: mutator(pair), lambda: mutator.freeze(sample)(pair)):
        with pytest.raises(ContextError, match=r"`?\(?x, context\)`.*context=VectorContext\(D, dim\)"):
            call()
    with pytest.raises((ContextError, TypeError, AttributeError)) as caught:
        mutator.space(pair)
    told = [str(caught.value), *getattr(caught.value, "__notes__", ())]
    assert any("context=VectorContext(D, dim)" in one for one in told)


def test_a_pair_that_is_the_networks_own_input_needs_no_encoder():
    mutator, sample = made(TakesPair, context=None)
    two = planes()
    torch.testing.assert_close(mutator.freeze(sample)(two), mutator(two))
