"""Whose weights a sample gets: networks that lay samples in another order are found, those that do not are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_dynconv import (
    DynamicConv2d,
    DynamicLinear,
    DynamicWeightMutator,
    RandomSampler,
    VectorContext,
    diagnose,
    lift,
    repeated,
)


class Ids(nn.Embedding):
    out_dim = 8


class Network(ModelSpace):
    """A choice and a head; `inner` is what the network does to the batch around the choice."""

    def __init__(self, before=None, after=None, norm=None):
        super().__init__()
        self.before, self.after = before or (lambda x: x), after or (lambda x: x)
        self.norm = norm or nn.Identity()
        self.body = LayerChoice([DynamicConv2d(2, 3, 1), DynamicConv2d(2, 3, 3, padding=1)], label="body")
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.after(self.head(self.norm(self.body(self.before(x))).mean((2, 3))))


def found(space, x, context=None, encoder=None, index=None, **options):
    torch.manual_seed(0)
    encoder = VectorContext(5, dim=8) if encoder is None else encoder
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(), context=encoder)
    context = torch.randn(len(x), 5) if context is None else context

    def step(batch):
        (one, c), y = batch
        return F.mse_loss(mutator.space(one, context=c, **({} if index is None else {"index": index})), y)

    with torch.no_grad(), mutator.using(mutator.reset()):
        y = torch.zeros_like(mutator.space(x, context=context, **({} if index is None else {"index": index})))
    space.train()
    diagnosis = diagnose(mutator, [((x, context), y)], step=step, samples=2, **options)
    assert space.training
    return diagnosis


def astray(diagnosis):
    return [one.where for one in diagnosis.faults if one.code == "weights-astray"]


def images(batch=6):
    return torch.randn(batch, 2, 5, 5, generator=torch.Generator().manual_seed(3))


def flip(x):
    return x.flip(0)


def sort(x):
    return x[x.flatten(1).mean(1).argsort()]


def shuffle(x):
    return x[torch.randperm(len(x))]


class Undone:
    """A permutation, undone behind the head: outputs stand where they belong, weights do not."""

    def do(self, x):
        self.order = torch.randperm(len(x))
        return x[self.order]

    def undo(self, x):
        return x[self.order.argsort()]


@pytest.mark.parametrize("reorder", [flip, sort, shuffle])
def test_samples_that_the_network_reorders_get_each_others_weights(reorder):
    diagnosis = found(Network(before=reorder), images())
    assert astray(diagnosis) in (["body/0"], ["body/1"])
    assert diagnosis.whose.astray == diagnosis.whose.judged == 2
    assert "repeated" in str(diagnosis) and 'repeats="consecutive"' in str(diagnosis)


def test_they_are_found_also_where_the_order_is_restored_behind_the_op():
    undone = Undone()
    assert astray(found(Network(before=undone.do, after=undone.undo), images()))
    assert astray(found(Network(before=flip, after=flip), images()))


@pytest.mark.whole
@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_of_all_orders_the_own_one_alone_is_right(order):
    diagnosis = found(Network(before=lambda x: x[torch.tensor(order)]), images())
    assert bool(astray(diagnosis)) == (list(order) != list(range(6)))


@pytest.mark.parametrize(
    "norm",
    [None, nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3), nn.Dropout(0.5)],
    ids=["plain", "batch norm", "without statistics", "group norm", "dropout"],
)
def test_samples_that_keep_their_order_are_not_blamed_whatever_stands_between(norm):
    diagnosis = found(Network(norm=norm), images())
    assert not astray(diagnosis)
    interacts = isinstance(norm, nn.BatchNorm2d) and not norm.track_running_stats
    assert (diagnosis.whose.judged, diagnosis.whose.unknown) == ((0, 2) if interacts else (2, 0))


class Tokens(ModelSpace):
    """Tokens, read by an op in the order that `first` gives, and pooled over time."""

    def __init__(self, given, inner):
        super().__init__()
        self.given, self.inner = given, inner  # "time" or "batch" first
        self.read = LayerChoice([DynamicLinear(4, 3), DynamicLinear(4, 3, bias=False)], label="read")

    def forward(self, x):
        turn = self.given != self.inner
        y = self.read(x.transpose(0, 1) if turn else x).tanh()
        return y.mean(0 if self.inner == "time" else 1)


@pytest.mark.parametrize(("given", "inner"), [("batch", "time"), ("time", "time"), ("batch", "batch")])
def test_tokens_laid_time_first_with_as_many_moments_as_samples_are_found(given, inner):
    tokens = torch.randn(6, 6, 4)
    assert bool(astray(found(Tokens(given, inner), tokens))) == (inner == "time")


class Views(ModelSpace):
    def __init__(self, told, laid):
        super().__init__()
        self.told, self.laid = told, laid
        self.body = DynamicConv2d(2, 3, 3, padding=1)

    def forward(self, x):
        views = torch.cat([x, x.flip(-1)]) if self.laid == "tiled" else torch.stack([x, x.flip(-1)], 1).flatten(0, 1)
        with repeated(self.told):
            y = self.body(views).mean((2, 3))
        return sum(y.chunk(2)) if self.laid == "tiled" else y.unflatten(0, (-1, 2)).sum(1)


@pytest.mark.parametrize("laid", ["tiled", "consecutive"])
@pytest.mark.parametrize("told", ["tiled", "consecutive"])
def test_a_network_that_says_the_wrong_word_of_repeated_samples_is_found(told, laid):
    assert bool(astray(found(Views(told, laid), images()))) == (told != laid)


def test_contexts_by_index_and_ids_are_told_apart_too():
    index, contexts = torch.tensor([0, 1, 2, 1, 0, 2]), torch.randn(3, 5)
    assert not astray(found(Network(), images(), contexts, index=index))
    ids = torch.tensor([0, 1, 2, 3, 4, 5])
    assert not astray(found(Network(), images(), ids, Ids(6, 8)))
    assert astray(found(Network(before=flip), images(), ids, Ids(6, 8)))


def test_without_contexts_of_several_samples_nothing_is_read():
    assert found(Network(before=flip), images(), torch.randn(1, 5)).whose is None
    assert "weights-astray" not in str(found(Network(before=flip), images(), ignore=["weights-astray"]))


class Plain(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.before, self.body, self.norm = before, nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.body(self.before(x))).mean((2, 3))


@pytest.mark.parametrize("base", ["given", "learned"])
def test_a_lifted_network_is_read_though_its_deltas_start_at_zero_and_stays_as_it_was(base):
    for before in (flip, nn.Identity()):
        mutator = lift(Plain(before), base=base).mutator(context=VectorContext(5, dim=8))
        before_it = [one.clone() for one in (*mutator.parameters(), *mutator.buffers())]
        batch = (images(), torch.randn(6, 5)), torch.zeros(6, 3)
        assert bool(astray(diagnose(mutator, [batch], F.mse_loss))) == (before is flip)
        now = (*mutator.parameters(), *mutator.buffers())
        assert all(torch.equal(one, other) for one, other in zip(now, before_it, strict=True))


def test_the_weights_of_what_mixes_samples_itself_are_not_judged():
    class Mixing(Network):
        def forward(self, x):
            z = super().forward(x)
            return (z @ z.T).softmax(1) @ z

    diagnosis = found(Mixing(), images())
    assert not astray(diagnosis) and diagnosis.whose.unknown == 2
