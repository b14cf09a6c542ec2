"""A base is what a layer of torch has: a parameter of its name and shape, under the layer's path."""

from __future__ import annotations

import copy

import pytest
import torch
from spaces import OneChoice
from torch import nn

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext, lift
from nni_dynconv.errors import ParamsError


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 6, 2, groups=2)]
    network = nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(6 * 49, 3, bias=False))
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.1, 0.5)
    return network.eval()


WHERE = [nn.Conv2d, nn.BatchNorm2d, nn.PReLU, nn.ConvTranspose2d, nn.Linear]
IMAGE = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def lifted(**options):
    return lift(net(), where=WHERE).mutator(**{"context": VectorContext(5, 8), **options}).eval()


@pytest.mark.parametrize("delta", ["none", "scale", "low_rank", "full"])
def test_a_base_has_the_names_shapes_and_values_of_the_layer(delta):
    found = {name: one.detach() for name, one in lifted(delta=delta).source.bases.named_parameters()}
    expected = {name: one.detach() for name, one in net().named_parameters()}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=0, atol=0)


def test_groups_of_an_optimizer_are_those_of_before():
    """A base used to be one flat vector, so that no weight was decayed."""

    def decayed(parameters):
        return sorted(tuple(one.shape) for one in parameters if one.ndim >= 2)

    assert decayed(lifted(delta="none", context=None).space.parameters()) == decayed(net().parameters())


def test_a_frozen_network_has_only_the_bases_of_its_architecture():
    mutator = DynamicWeightMutator(OneChoice(), base="learned", sampler=RandomSampler(seed=0))
    sample = mutator.reset()
    kept = {name for name, _ in mutator.freeze(sample).source.bases.named_parameters()}
    assert kept == {f"{site.name}.{spec.name}" for site in mutator.plan(sample) for spec in site.specs}


def test_a_layer_whose_name_is_a_word_of_torchs_modules_has_a_base():
    network = nn.Module()
    network.half = nn.Conv2d(1, 1, 1)
    mutator = lift(network, where=nn.Conv2d).mutator()
    assert [name for name, _ in mutator.source.bases.named_parameters()] == ["half.weight", "half.bias"]


# The original's state


@pytest.mark.parametrize("before", [True, False], ids=["before the mutator", "after"])
def test_the_original_state_is_loaded_by_one_call(before):
    other = net()
    for tensor in (*other.parameters(), *other.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.2, 0.4)
    one = lift(net(), where=WHERE)
    if before:
        one.load_original(other.state_dict())
    mutator = one.mutator(context=VectorContext(5, 8)).eval()
    if not before:
        mutator.load_original(other.state_dict())
    torch.testing.assert_close(mutator(IMAGE, context=torch.randn(3, 5)), other(IMAGE), rtol=1e-4, atol=1e-5)


def test_the_state_of_another_network_is_refused_with_both_values_and_nothing_is_loaded():
    mutator, state = lifted(), net().state_dict()
    before = copy.deepcopy(mutator.state_dict())
    with pytest.raises(ParamsError, match=r"1 of its 11 names are missing \(`0.0.bias`\), and 1 of 11 .*\(`else`\)"):
        mutator.load_original({"else" if name == "0.0.bias" else name: one for name, one in state.items()})
    with pytest.raises(ParamsError, match=r"`0.0.weight` is \(4, 1, 3, 3\) here, but \(4, 2, 3, 3\) there"):
        mutator.load_original({**state, "0.0.weight": torch.zeros(4, 2, 3, 3)})
    assert all(one.equal(before[name]) for name, one in mutator.state_dict().items() if isinstance(one, torch.Tensor))


def test_without_bases_the_original_state_has_no_place():
    mutator = lift(net(), where=nn.Conv2d, base="none").mutator()
    with pytest.raises(ParamsError, match=r"Layer `0.0` has no base that `weight` could be loaded into. Lift it with"):
        mutator.load_original(net().state_dict())
