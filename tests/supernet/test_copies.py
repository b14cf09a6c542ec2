"""Copies of a searching mutator: they run the architecture that they are asked for, or say that none is meant."""

from __future__ import annotations

import copy
import pickle

import pytest

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from spaces import CellSpace, Everything, OneChoice, image, vector
from torch import nn
from torch.optim.swa_utils import AveragedModel

from nni_dynconv import (
    DartsSampler,
    DynamicLinear,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
)
from nni_dynconv.errors import ScopeError

DRAWING = [RandomSampler, FairSampler, EnasSampler, GdasSampler]
COPIES = {"deepcopy": copy.deepcopy, "average": lambda mutator: AveragedModel(mutator).module}


def make(space=Everything, sampler=RandomSampler):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=0), context=VectorContext(5, 8)).eval()
    mutator.reset()
    return mutator


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("space", [Everything, CellSpace, OneChoice])
@pytest.mark.parametrize("sampler", [*DRAWING, DartsSampler])
def test_a_copy_runs_what_it_is_asked_for(how, space, sampler):
    if space is CellSpace and sampler is DartsSampler:
        pytest.skip("DARTS does not mix what cells concatenate")
    mutator = make(space, sampler)
    twin = COPIES[how](mutator)
    x, c = image(), vector()
    for _ in range(4):
        sample = mutator.reset()
        with twin.using(sample), mutator.using(sample):
            torch.testing.assert_close(twin(x, context=c), mutator(x, context=c))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("sampler", DRAWING)
def test_a_copy_that_was_left_behind_says_so(how, sampler):
    """It ran the architecture of long ago without a word."""
    mutator = make(sampler=sampler)
    twin, x, c = COPIES[how](mutator), image(), vector()
    torch.testing.assert_close(twin(x, context=c), mutator(x, context=c))
    mutator.export()  # draws nothing
    torch.testing.assert_close(twin(x, context=c), mutator(x, context=c))
    mutator.reset()
    for one in (twin, copy.deepcopy(twin)):
        with pytest.raises(ScopeError, match=r"is a copy, made at the architecture \{.*with copy.using\(sample\)"):
            one(x, context=c)
    mutator(x, context=c)


def test_a_copy_that_draws_or_is_told_goes_its_own_way():
    mutator = make()
    drawing, told = copy.deepcopy(mutator), copy.deepcopy(mutator)
    told.sample = dict(mutator.sample)
    mutator.reset()
    drawing.reset()
    drawing(image(), context=vector())
    told(image(), context=vector())
    mutator(image(), context=vector())


def test_a_copy_that_was_left_behind_says_so_for_good():
    mutator = make()
    twin, x, c = copy.deepcopy(mutator), image(), vector()
    mutator.reset()
    del mutator
    with pytest.raises(ScopeError, match="is a copy"):
        twin(x, context=c)
    twin.reset()
    twin(x, context=c)


def test_a_mutator_goes_to_another_process():
    mutator = make(OneChoice)
    twin = pickle.loads(pickle.dumps(mutator))  # noqa: S301
    mutator.reset()
    assert twin(image(), context=vector()).shape == mutator(image(), context=vector()).shape


@pytest.mark.parametrize("space", [OneChoice, Everything, CellSpace])
def test_a_copy_of_the_space_alone_says_that_nothing_chooses(space):
    """It died of NNI's words on paths that were not sampled."""
    twin = copy.deepcopy(make(space).space)
    with pytest.raises(ScopeError, match=r"[Nn]othing chooses|none is chosen"):
        twin((image(), vector()))


class Normed(ModelSpace):
    """A layer whose weight is a tensor that its hook computes."""

    def __init__(self, norm):
        super().__init__()
        self.op = LayerChoice([DynamicLinear(4, 4), nn.Linear(4, 4)], label="op")
        self.layer = norm(nn.Linear(4, 2))

    def forward(self, x):
        return self.layer(self.op(x))


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_network_with_a_tensor_that_it_computed_is_frozen_and_learns(norm):
    torch.manual_seed(0)
    mutator, x = DynamicWeightMutator(Normed(norm)), torch.randn(3, 4)
    mutator.reset()
    mutator(x).sum().backward()
    frozen = mutator.freeze(mutator.sample)
    mutator.eval()
    torch.testing.assert_close(frozen.eval()(x), mutator(x))
    frozen.train()(x).sum().backward()
    assert all(one.grad is not None for name, one in frozen.named_parameters() if "layer" in name)
