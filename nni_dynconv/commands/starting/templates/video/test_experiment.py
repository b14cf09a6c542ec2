"""What must hold before anything is searched: run `pytest` in this folder."""

from __future__ import annotations

import torch

import nni_dynconv
from data import SIZE, loaders
from nni_dynconv import DynamicWeightMutator, FeatureMapContext, RandomSampler, export
from space import Space


def mutator():
    return DynamicWeightMutator(Space(), sampler=RandomSampler(seed=0), context=FeatureMapContext(3, dim=32))


def test_the_parts_have_no_clip_in_common():
    first = [next(iter(loader))[0][0] for loader in loaders(batch_size=8)[1:]]
    assert not torch.isclose(first[0][:, None], first[1]).flatten(2).all(-1).any()


def test_any_architecture_gives_a_frame_that_follows_the_context():
    (noisy, context), clean = next(iter(loaders(batch_size=8)[0]))
    network = mutator()
    for _ in range(5):
        network.reset()
        result = network(noisy, context=context)
        assert result.shape == clean.shape == (8, 1, SIZE, SIZE)
        assert not torch.allclose(result, network(noisy, context=context.roll(1, dims=0)))


def test_a_network_comes_back_from_its_files_as_it_was(tmp_path):
    (noisy, context), _ = next(iter(loaders(batch_size=8)[1]))
    network = mutator().eval().freeze({"filter": "conv5", "first": "conv3", "second": "skip"})
    result = network(noisy, context)
    export.save(network, tmp_path)
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(noisy, context), result)
