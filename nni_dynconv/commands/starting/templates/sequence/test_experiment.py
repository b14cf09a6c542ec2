"""What must hold before anything is searched: run `pytest` in this folder."""

from __future__ import annotations

import torch

import nni_dynconv
from data import LENGTH, loaders
from nni_dynconv import DynamicWeightMutator, RandomSampler, SequenceContext, export
from space import Space


def mutator():
    return DynamicWeightMutator(Space(), sampler=RandomSampler(seed=0), context=SequenceContext(2, dim=32))


def test_the_parts_have_no_signal_in_common():
    first = [next(iter(loader))[0][0] for loader in loaders(batch_size=8)[1:]]
    assert not torch.isclose(first[0][:, None], first[1]).all(-1).any()


def test_any_architecture_gives_scores_that_follow_the_context():
    (received, pilot), sent = next(iter(loaders(batch_size=8)[0]))
    network = mutator()
    for _ in range(5):
        network.reset()
        scores = network(received, context=pilot)
        assert scores.shape == sent.shape == (8, 1, LENGTH)
        assert not torch.allclose(scores, network(received, context=pilot.roll(1, dims=0)))


def test_a_network_comes_back_from_its_files_as_it_was(tmp_path):
    (received, pilot), _ = next(iter(loaders(batch_size=8)[1]))
    network = mutator().eval().freeze({"first": "conv5", "second": "skip"})
    scores = network(received, pilot)
    export.save(network, tmp_path)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(received, pilot), scores)
