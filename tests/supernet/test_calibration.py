"""BatchNorm's statistics of one architecture, gathered for a block, and affine maps that stand still for a search."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import OneChoice
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas.nn.pytorch.layers import MutableBatchNorm2d
from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d

from nni_dynconv import DynamicBatchNorm2d, DynamicWeightMutator, FeatureMapContext, RandomSampler, export, load
from nni_dynconv.errors import ConfigError
from nni_dynconv.supernet.calibration import calibrate, fixed_affine, recalibrated, tracking_norms


class Normed(OneChoice):
    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.norm = norm(4)

    def forward(self, x):
        return self.norm(super().forward(x))


def norms():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    return [2 + torch.randn(8, 1, 4, 4, generator=generator) for _ in range(count)]


def test_statistics_in_the_block_are_those_of_all_batches_together():
    network, data = norms(), batches()
    with recalibrated(network, network, data), torch.no_grad():
        seen = network[0](torch.cat(data))
        torch.testing.assert_close(network[1].running_mean, seen.mean((0, 2, 3)))
        torch.testing.assert_close(network[1].running_var, seen.var((0, 2, 3)))


def sliced(features, width=None):
    """NNI's of a supernet, with the features of an architecture; it used to keep the supernet's statistics."""
    mixed = MixedBatchNorm2d({"num_features": nni.choice("width", [2, features])})
    given = {"num_features": width or features, "eps": 1e-5, "momentum": 0.1}
    mixed.sampling_policy = SimpleNamespace(forward_argument=lambda module, name: given[name])
    return mixed


class Follows(nn.Module):
    """A layer between two norms, of any number of axes: it mixes channels, and is not linear."""

    def __init__(self, features):
        super().__init__()
        mix = torch.randn(features, features, generator=torch.Generator().manual_seed(1))
        self.register_buffer("mix", torch.linalg.qr(mix)[0], persistent=False)

    def forward(self, x):
        return F.leaky_relu((x.movedim(1, -1) @ self.mix).movedim(-1, 1), 0.3)


KINDS = [
    (nn.BatchNorm1d, ()),
    (nn.BatchNorm1d, (5,)),
    (nn.BatchNorm2d, (3, 2)),
    (nn.BatchNorm3d, (2, 2, 2)),
    (nn.SyncBatchNorm, (3, 2)),
    (MutableBatchNorm2d, (3, 2)),
    (sliced, (3, 2)),
]


def stack(kind, depth):
    layers = [(kind(4), Follows(4)) for _ in range(depth)]
    return nn.Sequential(*(one for pair in layers for one in pair))


def of_one_batch(network, x):
    """Return the statistics of all samples in one batch, layer by layer, by the formulas."""
    found = []
    for layer in network:
        if isinstance(layer, Follows):
            x = layer(x)
            continue
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=1)
        found.append((mean, variance))
        shape = [1, -1] + [1] * (x.dim() - 2)
        x = (x - mean.view(shape)) / (x.var(axes, correction=0).view(shape) + layer.eps).sqrt()
    return found


def ragged(positions, sizes, ordered):
    """Return batches of such sizes; where they are ordered, each has values of its own."""
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(sum(sizes), 4, *positions, generator=generator)
    x += 5 * torch.arange(sum(sizes)).view(-1, *[1] * (x.dim() - 1)) / sum(sizes) if ordered else 0
    return x.split(sizes)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("sizes", [[16, 16], [64, 2], [1, 7, 1]])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("kind", "positions"), KINDS)
def test_ragged_and_ordered_batches_give_the_statistics_of_one_batch(kind, positions, depth, sizes, ordered):
    """64 and 2 samples weighed the same; variance between batches was left out, and hidden from later norms."""
    network, data = stack(kind, depth), ragged(positions, sizes, ordered)
    calibrate(network, network, data)
    norms = [one for one in network if not isinstance(one, Follows)]
    with torch.no_grad():
        expected = of_one_batch(network, torch.cat(data))
    for norm, (mean, variance) in zip(norms, expected, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=1e-5)
        assert norm.num_batches_tracked == len(sizes)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6).filter(lambda sizes: max(sizes) > 1), st.integers(1, 4))
def test_however_samples_are_cut_into_batches_the_statistics_are_the_same(sizes, depth):
    network, data = stack(nn.BatchNorm1d, depth), ragged((2,), sizes, True)
    calibrate(network, network, data)
    found = statistics(network)
    calibrate(network, network, [torch.cat(data)])
    torch.testing.assert_close(found, statistics(network), rtol=1e-5, atol=1e-5)


def statistics(network):
    return [(one.running_mean.clone(), one.running_var.clone()) for one in tracking_norms(network)]


def test_one_batch_gives_the_statistics_of_a_forward_in_training_mode():
    network, x = stack(nn.BatchNorm2d, 3), ragged((3, 2), [8], True)[0]
    calibrate(network, network, [x])
    found = statistics(network)
    for norm in tracking_norms(network.train()):
        norm.reset_running_stats()
        norm.momentum = None
    network(x)
    torch.testing.assert_close(found, statistics(network), rtol=1e-5, atol=1e-5)


def test_channels_that_a_sliced_norm_does_not_use_keep_what_they_have():
    norm = sliced(4, 2)
    norm.running_mean.fill_(7.0)
    calibrate(norm, norm, [torch.ones(2, 2, 3, 3), torch.zeros(6, 2, 3, 3)])
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.25, 0.25, 7.0, 7.0]))


def test_of_a_deep_network_the_first_eight_norms_are_exact_and_the_others_near():
    """In deviations; 128 samples tell a mean to 0.09, and the worst of 48 means to 0.2."""
    data = ragged((), [32] * 4, False)
    network = stack(nn.BatchNorm1d, 20)
    calibrate(network, network, data)
    expected = of_one_batch(network, torch.cat(data))
    shifts = [
        float(((norm.running_mean - mean).abs() / variance.sqrt()).max())
        for norm, (mean, variance) in zip(tracking_norms(network), expected, strict=True)
    ]
    assert max(shifts[:8]) < 1e-5 and max(shifts) < 0.2, shifts


def test_in_the_block_the_network_is_in_evaluation_mode_and_repeats_itself():
    network, (x, *_) = norms(), batches()
    with recalibrated(network, network, [x]):
        assert not any(module.training for module in network.modules())
        assert torch.equal(network(x), network(x))


def test_afterwards_all_is_as_before_also_after_an_error():
    network = norms()
    network[3].eval()
    network(batches()[0])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(KeyError), recalibrated(network, network, batches()):
        raise KeyError
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert network[1].training and network[1].momentum == 0.1 and not network[3].training


def test_an_error_while_gathering_restores_too():
    network = norms()
    before = network[1].running_mean.clone()

    def run(x):
        network(x)
        raise ValueError("broken batch")

    with pytest.raises(ValueError, match="broken batch"), recalibrated(network, run, batches()):
        pass
    assert torch.equal(network[1].running_mean, before) and network[1].training


def test_without_batches_the_statistics_stay():
    network = norms()
    network(batches()[0])
    before = network[1].running_mean.clone()
    with recalibrated(network, network, []):
        assert torch.equal(network[1].running_mean, before) and not network[1].training


def test_dynamic_norms_are_among_those_that_are_told_and_norms_without_statistics_are_not():
    dynamic = DynamicBatchNorm2d(3)
    network = nn.Sequential(dynamic, nn.BatchNorm2d(3, track_running_stats=False))
    assert tracking_norms(network) == [dynamic.norm]


def test_two_architectures_of_a_supernet_get_statistics_of_their_own():
    mutator, found = DynamicWeightMutator(Normed(), sampler=RandomSampler(0)), []
    for name in ("3x3", "skip"):
        with mutator.using({"op": name}), recalibrated(mutator.space, mutator, batches()):
            found.append(mutator.space.norm.running_mean.clone())
    assert not torch.allclose(*found)


def test_a_context_that_the_batch_shares_is_encoded_as_before():
    """Its encoder's norm sees a single sample and gathers nothing, but was told to forget what it knew."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=FeatureMapContext(1, dim=4)).eval()
    mutator.context.norm.running_mean.fill_(3.0)
    mutator.context.norm.running_var.fill_(5.0)
    shared, seen = 2 + torch.randn(1, 1, 8, 8), []
    expected = mutator.context(shared)
    hook = mutator.context.register_forward_hook(lambda module, args, code: seen.append(code))
    with mutator.using({"op": "3x3"}), recalibrated(mutator.space, lambda x: mutator(x, context=shared), batches()):
        mutator(batches()[0], context=shared)
    hook.remove()
    assert len(seen) == 4 and all(torch.equal(code, expected) for code in seen)


def test_statistics_that_are_not_finite_are_forgotten():
    network, data = norms(), batches()
    network[1].running_mean.fill_(torch.nan)
    network[1].running_var.fill_(torch.inf)
    with recalibrated(network, network, data):
        assert network(data[0]).isfinite().all()
    assert network[1].running_mean.isnan().all()


def test_statistics_that_are_to_be_kept_are_the_average_and_all_else_is_as_before():
    network, data = norms(), batches()
    network[3].eval()
    with recalibrated(network, network, data):
        expected = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    assert calibrate(network, network, iter(data)) == 3
    torch.testing.assert_close(dict(network.state_dict()), expected)
    assert network[1].training and not network[3].training and network[1].momentum == network[3].momentum == 0.1
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_loader_that_shuffles_does_not_move_the_global_generator():
    network, data = norms(), [(x, 0) for x in torch.cat(batches())]
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True)
    generator = torch.get_rng_state()
    assert calibrate(network, lambda batch: network(batch[0]), loader) == 3
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_norm_that_no_batch_reaches_keeps_what_it_has():
    network, data = norms(), batches()
    network(data[0])
    before = {name: value.clone() for name, value in network[3].state_dict().items()}
    calibrate(network, network[:2], data)
    assert network[1].num_batches_tracked == 3
    assert all(torch.equal(value, before[name]) for name, value in network[3].state_dict().items())
    assert network[3].momentum == 0.1


def test_after_an_error_nothing_is_kept():
    network, (x, *_) = norms(), batches()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RuntimeError):
        calibrate(network, network, [x, torch.ones(8, 2, 4, 4)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network[1].momentum == 0.1 and network[1].training


def trained_a_bit(norm=nn.BatchNorm2d):
    """A supernet whose running statistics are a mixture over its architectures."""
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Normed(norm), sampler=RandomSampler(0))
    for x in batches() * 4:
        mutator.reset()
        mutator(5 * x)
    return mutator


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, DynamicBatchNorm2d])
@pytest.mark.parametrize("form", [lambda x: (x, 0), lambda x: [x, 0], lambda x: x])
def test_a_frozen_copy_has_statistics_of_its_own_and_keeps_them(norm, form, tmp_path):
    """It used to have the supernet's, whose mean over architectures is that of none of them."""
    mutator, data = trained_a_bit(norm), batches()
    before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
    with mutator.using({"op": "5x5"}), recalibrated(mutator.space, mutator, data), torch.no_grad():
        expected = mutator(data[0])
    network = mutator.freeze({"op": "5x5"}, calibrate=map(form, data))
    assert network.training
    torch.testing.assert_close(network.eval()(data[0]), expected)
    assert not torch.allclose(mutator.freeze({"op": "5x5"}).eval()(data[0]), expected, rtol=0.1)
    assert all(torch.equal(value, before[name]) for name, value in mutator.space.state_dict().items())
    export.save(network, tmp_path)
    torch.testing.assert_close(load(tmp_path).eval()(data[0]), expected)


def test_a_copy_with_a_context_of_batches_of_pairs_is_calibrated():
    mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0), context=FeatureMapContext(1, dim=4)).eval()
    data = [((x, x), 0) for x in batches()]
    network = mutator.freeze({"op": "3x3"}, calibrate=data)
    assert {one.num_batches_tracked.item() for one in tracking_norms(network)} == {3} and not network.training


@pytest.mark.parametrize("space", [OneChoice, lambda: Normed(lambda c: nn.BatchNorm2d(c, track_running_stats=False))])
def test_a_space_without_running_statistics_takes_no_batch(space):
    mutator, data = DynamicWeightMutator(space(), sampler=RandomSampler(0)), iter(batches())
    network = mutator.freeze({"op": "3x3"}, calibrate=data)
    assert len(list(data)) == 3 and torch.isfinite(network(batches()[0])).all()
    mutator.freeze({"op": "3x3"}, calibrate=[])


def test_no_batch_and_a_batch_of_another_form_are_refused():
    mutator = trained_a_bit()
    with pytest.raises(ConfigError, match="`calibrate` is empty. Give training batches, in a list or as a loader"):
        mutator.freeze({"op": "3x3"}, calibrate=[])
    with pytest.raises(ConfigError, match=r"statistics is a dict, but must be .*calibration.calibrate\(network, run"):
        mutator.freeze({"op": "3x3"}, calibrate=[{"x": 1}])


def test_affine_maps_do_not_learn_in_the_block_and_learn_after_it():
    network, x = norms(), batches()[0]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    nn.init.constant_(network[1].weight, 3.0)
    with fixed_affine(network):
        network(x).square().sum().backward()
        optimizer.step()
        assert network[1].weight.tolist() == [1, 1, 1] and network[1].bias.tolist() == [0, 0, 0]
    optimizer.zero_grad()
    network(x).sum().backward()
    assert network[3].bias.grad.abs().sum() > 0


def test_what_was_fixed_by_the_user_stays_fixed():
    network = norms()
    network[1].weight.requires_grad_(False)
    with fixed_affine(network):
        pass
    assert not network[1].weight.requires_grad and network[1].bias.requires_grad
    with fixed_affine(network, fixed=False):
        assert network[1].bias.requires_grad
