"""What must hold before anything is searched: run `pytest` in this folder."""

from __future__ import annotations

import torch

import nni_dynconv
from data import PARTS, loaders
from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext, export
from space import Space


def mutator():
    return DynamicWeightMutator(Space(), sampler=RandomSampler(seed=0), context=VectorContext(4, dim=16))


def test_the_parts_have_no_digit_in_common():
    assert sorted(sum(PARTS.values(), ())) == list(range(5))


def test_any_architecture_gives_scores_that_follow_the_context():
    (image, turn), digit = next(iter(loaders(batch_size=8)[0]))
    network = mutator()
    for _ in range(5):
        network.reset()
        scores = network(image, context=turn)
        assert scores.shape == (len(digit), 10)
        assert not torch.allclose(scores, network(image, context=turn.roll(1, dims=1)))


def test_a_network_comes_back_from_its_files_as_it_was(tmp_path):
    (image, turn), _ = next(iter(loaders(batch_size=8)[1]))
    network = mutator().eval().freeze({"stem": "conv3", "body": "skip"})
    scores = network(image, turn)
    export.save(network, tmp_path)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image, turn), scores)
