"""Zero-cost proxies: scores of generated weights, and a sieve before the end of a search."""

from __future__ import annotations

import math

import pytest
import torch
from planted_moves import Moves, evaluator
from spaces import Everything, image

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from toy_task import ToySpace
from toy_task import evaluator as toy_evaluator

from nni_dynconv import (
    DynamicBatchNorm2d,
    DynamicConv2d,
    DynamicLinear,
    DynamicWeightMutator,
    RandomSampler,
    VectorContext,
)
from nni_dynconv.search.costing import called_on
from nni_dynconv.search.final import PROXIES, proxy_scores
from nni_dynconv.search.final.proxies import best_by_proxy, jacob_cov, synflow
from nni_dynconv.search.ranking import Task

pytestmark = pytest.mark.usefixtures("own_nni_folders")


def made(space, **options):
    torch.manual_seed(0)
    return DynamicWeightMutator(space, sampler=RandomSampler(0), **options)


def called(mutator, batch):
    return called_on(mutator, Task(lambda network, one: network(one).sum(), [batch]), mutator.reset())


class Plain(ModelSpace):
    """Two linear maps, generated and static, a norm of each kind between, no bias."""

    def __init__(self, wide=4):
        super().__init__()
        self.first = DynamicLinear(3, wide, bias=False)
        self.norm = nn.BatchNorm1d(wide)
        self.second = nn.Linear(wide, 2, bias=False)

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


def test_synflow_is_that_of_the_paper_for_weights_that_are_made():
    """Of a chain without biases each layer's share is the sum of the outputs, 1' |W2| |W1| 1."""
    mutator = made(Plain())
    call = called(mutator, torch.randn(5, 3))
    network = mutator.freeze()
    weights = {}
    network.network.first.register_forward_pre_hook(lambda *_: None)
    compute = network.network.first.compute
    network.network.first.compute = lambda x, w, *more: weights.update(w) or compute(x, w, *more)
    network.eval()(torch.zeros(1, 3))
    first, second = (one.detach().double().abs() for one in (weights["weight"], network.network.second.weight))
    expected = 2 * 5 * float((second @ first).sum())
    assert synflow(mutator.freeze(), call) == pytest.approx(math.log(expected), rel=1e-6)


def test_synflow_looks_at_no_data():
    mutator = made(Plain())
    scores = [synflow(mutator.freeze(), called(mutator, torch.randn(5, 3))) for _ in range(2)]
    assert scores[0] == scores[1]


def test_jacob_cov_is_that_of_the_paper():
    mutator = made(Everything())
    batch = image(6)
    call, sample = called(mutator, batch), mutator.reset()
    x = batch.clone().requires_grad_()
    network = mutator.freeze(sample).train()
    rows = [torch.autograd.grad(network(x).sum(), x)[0].reshape(len(x), -1)]
    values = torch.linalg.eigvalsh(torch.tensor(numpy_correlation(rows[0])))
    expected = -float((torch.log(values + 1e-5) + 1 / (values + 1e-5)).sum())
    assert jacob_cov(mutator.freeze(sample), call) == pytest.approx(expected, rel=1e-3)


def numpy_correlation(rows):
    import numpy as np

    return np.corrcoef(rows.double().numpy())


def test_a_network_that_answers_alike_to_all_samples_scores_lower():
    class Answers(ModelSpace):
        def __init__(self):
            super().__init__()
            curved = nn.Sequential(DynamicConv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU())
            self.op = LayerChoice({"linear": nn.Conv2d(1, 4, 5), "curved": curved}, label="op")

        def forward(self, x):
            return self.op(x)

    mutator = made(Answers())
    call = called(mutator, image(8))
    linear, curved = proxy_scores("jacob_cov", mutator, [{"op": "linear"}, {"op": "curved"}], call)
    assert linear < curved


def test_a_candidate_through_which_nothing_flows_scores_lowest():
    class Cut(nn.Module):
        def forward(self, x):
            return 0 * x

    class Flows(ModelSpace):
        def __init__(self):
            super().__init__()
            self.stem = DynamicConv2d(1, 4, 3, padding=1)
            self.op = LayerChoice({"cut": Cut(), "conv": DynamicConv2d(4, 4, 3, padding=1)}, label="op")
            self.norm, self.own = DynamicBatchNorm2d(4), nn.GroupNorm(2, 4)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(self.own(self.norm(self.op(self.stem(x)).relu())))

    mutator = made(Flows())
    cut, conv = proxy_scores("synflow", mutator, [{"op": "cut"}, {"op": "conv"}], called(mutator, image()))
    assert cut < conv and math.isfinite(conv)


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_leaves_supernet_draws_and_generators_as_they_were(name):
    mutator = made(Everything(), context=VectorContext(3, dim=4), base="learned")
    batch = image(4), torch.randn(4, 3)
    call = called_on(mutator, Task(lambda network, one: network(one).sum(), [batch]), mutator.reset())
    drawn, sample = mutator.sample, mutator.reset()
    mutator.sample = drawn
    before = {key: one.clone() for key, one in mutator.state_dict().items() if isinstance(one, torch.Tensor)}
    state = torch.get_rng_state()
    with torch.no_grad():  # as the end of a search is
        first, second = (proxy_scores(name, mutator, [sample], call) for _ in range(2))
    assert first == second and math.isfinite(first[0])
    after = {key: one for key, one in mutator.state_dict().items() if isinstance(one, torch.Tensor)}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert mutator.sample is not None and torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in mutator.parameters())


@pytest.mark.parametrize(("how", "looked_at"), [("draws", 12), ("evolution", 9)])
def test_a_proxy_decides_which_of_the_draws_are_measured(how, looked_at, monkeypatch):
    seen = []

    def score(network, call):
        seen.append(network.architecture)
        return float(sum(map(int, network.architecture.values())))

    monkeypatch.setitem(PROXIES, "synflow", score)
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Moves(), sampler=RandomSampler(0))
    options = {
        "contenders": 4,
        "population": 3,
        "evaluations": 3,
        "proxy": "synflow",
        "proxy_draws": 3,
        "rerank": 0,
        "final_epochs": 0,
    }
    strategy = mutator.strategy(final_search=how, **options)
    strategy.mutate_evaluator(evaluator(1, 2)).evaluate(mutator.space)
    best = sorted((sum(map(int, one.values())) for one in seen), reverse=True)[: looked_at // 3]
    measured = mutator.sampler.memory()["rewards"]
    assert len(seen) == looked_at and len(measured) == looked_at // 3
    assert sum(map(int, mutator.export().values())) in best


def test_the_best_few_stay_in_their_order():
    samples = [{"op": name} for name in "abcd"]
    assert best_by_proxy(samples, [0.0, 3.0, math.nan, 1.0], 2) == [{"op": "b"}, {"op": "d"}]


@pytest.mark.parametrize("name", PROXIES)
def test_a_search_is_sieved_by_each_proxy(name, capsys):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    strategy = mutator.strategy(contenders=2, proxy=name, proxy_draws=4, rerank=0, final_epochs=0)
    strategy.mutate_evaluator(toy_evaluator(1, 2)).evaluate(mutator.space)
    assert "Measured 2 architectures" in capsys.readouterr().out
