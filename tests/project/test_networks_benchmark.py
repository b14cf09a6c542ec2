"""The benchmark of whole networks: its networks, what is written by hand, and the rows that it makes."""

from __future__ import annotations

import json

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from benchmarks.networks import estimates
from benchmarks.networks.by_hand import BY_HAND, Conditioned, LowRank, LowRankBeside
from benchmarks.networks.hub import path_sampled
from benchmarks.networks.measure import CONTENDERS, CONTEXT, among, measure
from benchmarks.networks.peers import ChunkedByLoop, hypernetwork
from benchmarks.networks.zoo import NETWORKS, Small
from nni_dynconv.functional import Scaled, conv2d


def test_networks_take_images_and_give_classes():
    x = torch.randn(2, 3, 32, 32)
    for make in NETWORKS.values():
        assert make().eval()(x).shape == (2, 10)
    assert sum(one.numel() for one in Small().parameters()) == 72_586


@pytest.mark.parametrize("wrap", [one for ways in BY_HAND.values() for one in ways])
def test_what_is_written_by_hand_serves_each_sample_by_its_own_context(wrap):
    torch.manual_seed(0)
    network = Conditioned(NETWORKS["unet"](), wrap, CONTEXT).eval()
    x, context = torch.randn(3, 3, 8, 8), torch.randn(3, CONTEXT)
    one_by_one = [network(x[b : b + 1], context[b : b + 1]) for b in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(network(x, context), torch.cat(one_by_one), rtol=1e-4, atol=1e-5)


def test_both_ways_to_write_a_product_compute_the_same():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 24, 3, 2, 1)
    formed = LowRank(layer, CONTEXT)
    beside = LowRankBeside(layer, CONTEXT)
    beside.load_state_dict(formed.state_dict())
    x, formed.context = torch.randn(4, 16, 9, 9), torch.randn(4, CONTEXT)
    beside.context = formed.context
    torch.testing.assert_close(beside(x), formed(x), rtol=1e-4, atol=1e-4)


def test_film_by_hand_is_the_scaled_base():
    layer = nn.Conv2d(3, 5, 3)
    film = BY_HAND["film"][0](layer, CONTEXT)
    x, film.context = torch.randn(4, 3, 6, 6), torch.randn(4, CONTEXT)
    expected = conv2d(x, Scaled(layer.weight, 1 + film.scale(film.context)), film.bias)
    torch.testing.assert_close(film(x), expected, rtol=1e-4, atol=1e-5)


def test_a_row_says_what_was_measured():
    row = measure("small", 2, "film", 0.01)
    assert {"over_static", "over_hand", "memory_over_static", "making_share"} <= set(row)
    assert row["over_static"] > 0 and row["over_hand"] > 0 and row["memory_over_static"] > 0
    assert "film" in CONTENDERS


@pytest.mark.whole
def test_an_estimate_has_a_row_with_what_was_measured():
    row = estimates.compare("small", 2, "film")
    assert row["over_measured"] == pytest.approx(row["estimated"] / row["measured"], rel=0.1)
    assert row["memory_over_measured"] == pytest.approx(1, rel=0.5)
    assert "small        B   2 film" in estimates.describe(row)


def test_rows_of_a_file_stay_and_the_same_one_is_replaced(tmp_path):
    """A run of some rows wrote a file of these alone."""
    names = {"batch": 8, "contender": "film", "threads": 1}
    first, second = ({"network": network, **names, "over_static": 1.0} for network in ("small", "unet"))
    path = tmp_path / "results.json"
    assert among(path, "networks", first) == [first]
    path.write_text(json.dumps({"networks": [first, second]}))
    assert among(path, "networks", {**first, "over_static": 2.0}) == [{**first, "over_static": 2.0}, second]


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        self.choice = LayerChoice([nn.Linear(3, 2), nn.Linear(3, 2, bias=False)], label="which")

    def forward(self, x):
        return self.choice(x)


@pytest.mark.parametrize("which", [0, 1])
def test_a_supernet_of_nni_runs_the_architecture_that_is_asked_for(which):
    space = path_sampled(Space, {"which": which})
    x = torch.randn(2, 3)
    torch.testing.assert_close(space(x), getattr(space.choice, str(which))(x))


def test_hypnettorch_makes_weights_of_each_sample():
    pytest.importorskip("hypnettorch", reason="it is no dependency")
    model = ChunkedByLoop(hypernetwork(), Small(), CONTEXT, 16)
    x = torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1)
    first, second = model(x, torch.randn(2, CONTEXT))
    assert not torch.allclose(first, second)
