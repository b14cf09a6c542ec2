"""Frozen networks whose linear layers torch quantizes."""

from __future__ import annotations

import pytest
import torch
from spaces import Everything, image, vector

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.generation import controllers


@pytest.mark.filterwarnings("ignore")  # torch moves it into a package of its own
@pytest.mark.parametrize("name", [name for name in controllers.__all__ if name != "Controller"])
def test_a_frozen_network_is_quantized_dynamically(name):
    """A quantized layer's weight is a method, which the default controller multiplied with."""
    torch.manual_seed(4)  # one whose few outputs do not nearly cancel out
    controller = getattr(controllers, name)()
    mutator = DynamicWeightMutator(
        Everything(), controller=controller, sampler=RandomSampler(seed=0), context=VectorContext(5, 8)
    ).eval()
    network = mutator.freeze(mutator.reset())
    quantized = torch.ao.quantization.quantize_dynamic(network)
    x, c = image(3), vector(3)
    expected, found = network(x, c), quantized(x, c)
    assert ((found - expected).norm() / expected.norm()).item() < 0.2
