"""Several samples of one context: one set of weights for each context, and the values of one set for each sample."""

from __future__ import annotations

import pytest
import spaces
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import CellSpace, Everything, OneChoice
from torch.utils.checkpoint import checkpoint

from nni_dynconv import (
    ChunkedController,
    DartsSampler,
    DynamicWeightMutator,
    FeatureMapContext,
    RandomSampler,
    VectorContext,
)
from nni_dynconv.errors import ContextError
from nni_dynconv.sites.batch import batch_of, blocks_of

INDICES = {
    "equal, sorted": [0, 0, 1, 1, 2, 2],
    "equal, mixed": [2, 0, 1, 0, 1, 2],
    "unequal": [1, 1, 0, 3, 1, 0],
    "each its own": [3, 1, 4, 0, 5, 2],
    "one for all": [3, 3, 3, 3, 3, 3],
}


class Counting(ChunkedController):
    """Notes how many sets of weights were made."""

    def bind(self, sites, context_dim):
        super().bind(sites, context_dim)
        self.sets = set()

    def generate(self, sites, context):
        self.sets.add(1 if context is None or context.dim() == 1 else len(context))
        return super().generate(sites, context)


def make(space=OneChoice, sampler=RandomSampler, context=None, **options):
    torch.manual_seed(0)
    context = VectorContext(5, 8) if context is None else context
    return (
        DynamicWeightMutator(
            space(), sampler=sampler(seed=0), context=context, controller=Counting(hidden=32), **options
        )
        .double()
        .eval()
    )  # double: sums of other orders differ by less than any mistake


def image(batch):
    return spaces.image(batch).double()


def vector(batch):
    return spaces.vector(batch).double()


def step(run, parameters):
    for parameter in parameters:
        parameter.grad = None
    y = run()
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), *(parameter.grad for parameter in parameters if parameter.grad is not None)]


def assert_same(found, expected):
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("space", [OneChoice, Everything, CellSpace])
def test_it_equals_one_context_a_sample_in_value_and_gradient(space, index):
    mutator, x, context = make(space), image(6), vector(6)
    index = torch.tensor(index)
    sample = mutator.reset() if space is not OneChoice else {"op": "5x5"}
    parameters = list(mutator.parameters())
    with mutator.using(sample):
        expected = step(lambda: mutator(x, context=context[index]), parameters)
        mutator.controller.sets.clear()
        assert_same(step(lambda: mutator(x, context=context, index=index), parameters), expected)
        assert mutator.controller.sets == {len(index.unique())}
    network = mutator.freeze(sample)
    torch.testing.assert_close(network(x, context, index=index), expected[0])
    torch.testing.assert_close(network((x, context), index=index), expected[0])


@pytest.mark.parametrize("sampler", [RandomSampler, DartsSampler])
def test_the_drawn_architecture_and_a_mixture_take_it_too(sampler):
    mutator, x, context = make(Everything, sampler), image(6), vector(4)
    index = torch.tensor(INDICES["unequal"])
    mutator.reset()
    parameters = list(mutator.parameters())
    expected = step(lambda: mutator(x, context=context[index]), parameters)
    assert_same(step(lambda: mutator(x, context=context, index=index), parameters), expected)
    torch.testing.assert_close(mutator.space((x, context), index=index), expected[0])


def test_a_batch_of_256_with_8_contexts_makes_8_sets():
    mutator = make()
    with mutator.using({"op": "3x3"}), torch.no_grad():
        mutator(image(256), context=vector(8), index=torch.arange(256) % 8)
    assert mutator.controller.sets == {8}


def test_a_context_that_no_sample_has_is_not_encoded():
    mutator = make()
    seen = []
    mutator.context.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    context = vector(6)
    with mutator.using({"op": "3x3"}):
        mutator(image(3), context=context, index=torch.tensor([4, 1, 4]))
    assert torch.equal(seen[0], context[[1, 4]])


def test_a_context_may_be_a_map_and_the_index_of_another_type():
    mutator = make(context=FeatureMapContext(2, 8))
    context = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    index = torch.tensor([3, 0, 3, 1], dtype=torch.int32)
    with mutator.using({"op": "3x3"}):
        expected = mutator(image(4), context=context[index])
        torch.testing.assert_close(mutator(image(4), context=context, index=index), expected)


class TwoInputs(OneChoice):
    """Several inputs and outputs, in structures, with a factor that all samples share."""

    def forward(self, x, more, *, factor):
        y = super().forward(x) * factor
        return {"y": y, "rest": (more["z"] + y.mean((1, 2, 3)), factor)}


def test_structures_of_inputs_and_outputs_are_sorted_and_restored():
    mutator, x, context, index = make(TwoInputs), image(4), vector(2), torch.tensor([1, 0, 1, 0])
    options = {"factor": torch.tensor([2.0], dtype=torch.double)}
    more = {"z": torch.arange(4.0, dtype=torch.double)}
    with mutator.using({"op": "3x3"}):
        expected = mutator(x, more, context=context[index], **options)
        found = mutator(x, more, context=context, index=index, **options)
    torch.testing.assert_close(found, expected)


def test_using_holds_the_context_and_the_call_the_index():
    mutator, x, context, index = make(), image(4), vector(2), torch.tensor([1, 0, 1, 0])
    with mutator.using({"op": "3x3"}, context=context):
        found = mutator(x, index=index)
    with mutator.using({"op": "3x3"}):
        torch.testing.assert_close(found, mutator(x, context=context[index]))


class Checkpointed(OneChoice):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return checkpoint(self.op, self.stem(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_runs_again_in_a_backward_knows_the_blocks(reentrant):
    x, context, index = image(5), vector(2), torch.tensor([1, 0, 1, 0, 1])
    found = []
    for space in (lambda: Checkpointed(reentrant), OneChoice):
        mutator = make(space)
        with mutator.using({"op": "3x3"}):
            found.append(step(lambda one=mutator: one(x, context=context, index=index), list(mutator.parameters())))
    assert_same(*found)


# Sorting


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_blocks_are_sorted_and_restored(index):
    index = torch.tensor(index)
    blocks = blocks_of(index, 6, len(index))
    x = torch.arange(len(index)) * 10
    inner = blocks.sort(x)
    torch.testing.assert_close(blocks.restore(inner), x)
    if blocks.counts is not None:
        assert min(blocks.counts) > 0 and sum(blocks.counts) == len(index)
        repeated = blocks.used.repeat_interleave(torch.tensor(blocks.counts))
        torch.testing.assert_close(repeated, blocks.sort(index))
    else:
        torch.testing.assert_close(blocks.used.expand(len(index)), index)


def test_an_empty_batch_has_no_blocks():
    assert blocks_of(torch.zeros(0, dtype=torch.long), 4, 0).counts is None


def test_the_batch_is_that_of_the_first_tensor():
    assert batch_of(3, torch.tensor(1.0), torch.zeros(4, 2), torch.zeros(5)) == 4
    assert batch_of("x", torch.tensor(1.0)) is None


# What is refused


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 1, 1], "`index` is a list, but must be a tensor of whole numbers"),
        (torch.tensor([0.0, 1.0, 1.0]), "`index` is a tensor of torch.float32, but must be a tensor of whole numbers"),
        (torch.tensor([True, False, True]), "`index` is a tensor of torch.bool, but must be"),
        (torch.tensor([0, 1]), r"`index` is \(2,\), but must be \(3,\): which of the 2 contexts each of the 3 samples"),
        (torch.tensor([[0], [1], [1]]), r"`index` is \(3, 1\), but must be \(3,\)"),
        (torch.tensor([0, 2, 1]), r"`index` goes from 0 to 2, but there are 2 contexts: it must be in 0 .. 1"),
        (torch.tensor([0, -1, 1]), r"`index` goes from -1 to 1, but there are 2 contexts"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(index, message):
    mutator = make()
    with mutator.using({"op": "3x3"}), pytest.raises(ContextError, match=message):
        mutator(image(3), context=vector(2), index=index)


def test_an_index_without_a_context_is_refused():
    mutator = make()
    with mutator.using({"op": "3x3"}), pytest.raises(ContextError, match="`index` says .* but there is no context"):
        mutator(image(3), index=torch.zeros(3, dtype=torch.long))


def test_an_index_for_one_vector_is_refused():
    """The rows that the index picks used to be numbers of the vector."""
    mutator = make()
    with (
        mutator.using({"op": "3x3"}),
        pytest.raises(ContextError, match="`index` picks 5 contexts, but the encoder gave 1"),
    ):
        mutator(image(5), context=vector(1)[0], index=torch.arange(5))


def test_fewer_contexts_than_samples_ask_for_an_index():
    mutator = make()
    with mutator.using({"op": "3x3"}), pytest.raises(ContextError, match=r"`mutator\(x, context=c, index=i\)`"):
        mutator(image(4), context=vector(2))
