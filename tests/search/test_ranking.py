"""Kendall's tau, its interval, precision and regret, against SciPy and by hand; comparing by held-out loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from often import each_once
from scipy.stats import kendalltau
from spaces import OneChoice
from torch import nn

from benchmarks.quality.coverage import coverage
from nni_dynconv import DynamicWeightMutator, RandomSampler
from nni_dynconv.errors import RankError
from nni_dynconv.search.ranking import (
    Task,
    fidelity,
    generated_losses,
    held_out_loss,
    interval,
    kendall_tau,
    precision,
    regret,
    train_briefly,
)
from nni_dynconv.search.ranking.statistics import _jackknife

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_tau_is_that_of_scipy_also_with_ties(pairs):
    first, second = zip(*pairs, strict=True)
    expected = kendalltau(first, second)[0]
    found = kendall_tau(first, second)
    assert found == pytest.approx(0.0 if expected != expected else expected)  # SciPy has nan where one side is all ties


@each_once(case=["normal", "heavy", "tied"], tau=[0.0, 0.6, 0.9])
def test_the_interval_holds_the_truth_in_about_as_many_cases_as_it_says(case, tau):
    """Of six pairs it used to hold it in 79 % of cases; the whole table is that of `benchmarks/quality/coverage.py`."""
    assert 91 <= coverage(case, tau, 10, 400, seed=1) <= 99


def test_a_wider_level_gives_a_wider_interval_and_no_order_of_pairs_decides():
    x, y = torch.randn(2, 30, generator=torch.Generator().manual_seed(0)).tolist()
    narrow, wide = interval(x, y, level=0.5), interval(x, y, level=0.99)
    assert wide[0] < narrow[0] < kendall_tau(x, y) < narrow[1] < wide[1]
    for other in (interval(x[::-1], y[::-1]), interval(y, x)):
        assert other == pytest.approx(interval(x, y))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=8, max_size=20))
def test_an_interval_lies_within_the_range_of_tau_and_holds_the_estimate(pairs):
    first, second = zip(*pairs, strict=True)
    found = interval(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert -1 < found[0] < found[1] < 1
        assert found[0] <= (1 - 0.6 / len(pairs)) * kendall_tau(first, second) <= found[1]


def test_the_jackknife_is_that_of_leaving_out_one_pair_each():
    x, y = torch.randint(0, 5, (2, 12), generator=torch.Generator().manual_seed(0)).double().numpy()
    without = [kendall_tau(np.delete(x, row), np.delete(y, row)) for row in range(12)]
    assert _jackknife(x, y) == pytest.approx((11 * np.var(without)) ** 0.5)


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_of_fewer_than_eight_pairs_there_is_no_interval(count):
    """Of two pairs it was always a point at 1 or -1; of four it held the truth in 80 % of cases, of six in 79 %."""
    ranks = list(range(count))
    assert interval(ranks, ranks) is None
    found = fidelity(ranks, ranks, k=1)
    assert (found.tau, found.low, found.high) == (pytest.approx(1.0), None, None)
    assert interval([*ranks, *range(count, 10)], [*ranks, *range(count, 10)]) is not None


@given(PAIRS, st.randoms(use_true_random=False))
def test_no_order_of_rows_decides_precision_and_regret(pairs, generator):
    """Of scores that tie, the first rows used to be the best."""
    shuffled = generator.sample(pairs, len(pairs))
    for k in range(1, len(pairs) + 1):
        found, other = (precision(*zip(*rows, strict=True), k) for rows in (pairs, shuffled))
        assert found == pytest.approx(other) and 0 <= found <= 1
    assert regret(*zip(*pairs, strict=True)) == pytest.approx(regret(*zip(*shuffled, strict=True)))


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=7), st.data())
def test_precision_with_ties_is_the_mean_over_all_orders_of_them(scores, data):
    truth = data.draw(st.permutations(range(len(scores))))
    k = data.draw(st.integers(1, len(scores)))
    orders = [sorted(one, key=lambda row: -scores[row]) for one in itertools.permutations(range(len(scores)))]
    best = {row for row, one in enumerate(truth) if one >= len(scores) - k}
    expected = np.mean([len(best & set(order[:k])) / k for order in orders])
    assert precision(scores, truth, k) == pytest.approx(expected)


def test_without_a_held_out_batch_nothing_is_compared():
    with pytest.raises(RankError, match="loss on held-out batches, but there is none"):
        held_out_loss(nn.Identity(), Task(lambda network, batch: batch, []))


def test_precision_and_regret_by_hand():
    scores, truth = [5, 4, 3, 2, 1], [70, 90, 80, 60, 50]
    assert [precision(scores, truth, k) for k in (1, 2, 3, 5)] == [0, 0.5, 1, 1]
    assert regret(scores, truth) == 20
    found = fidelity(scores, truth, k=9)
    assert (found.k, found.precision, found.regret, found.low) == (5, 1, 20, None)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RankError, match="3 scores cannot be compared with 2 results"):
        kendall_tau([1, 2, 3], [1, 2])
    with pytest.raises(RankError, match="needs two architectures or more, but there is 1"):
        regret([1], [1])
    with pytest.raises(RankError, match="not a number"):
        interval([1, float("nan")], [1, 2])
    with pytest.raises(RankError, match="`k` is 3, but must be from 1 to 2"):
        precision([1, 2], [1, 2], 3)


# Comparing architectures


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, 1, 6, 6, generator=generator)
    return [(one, F.avg_pool2d(one, 3, 1, 1).expand(-1, 4, -1, -1)) for one in x]


def loss(network, batch):
    x, y = batch
    return F.mse_loss(network(x), y)


def test_generated_losses_are_those_of_each_architecture_and_change_nothing():
    mutator = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0))
    samples = [{"op": name} for name in ("3x3", "pool", "skip")]
    before = {name: value.clone() for name, value in mutator.state_dict().items() if isinstance(value, torch.Tensor)}
    found = generated_losses(mutator, samples, Task(loss, batches(2)))
    for sample, one in zip(samples, found, strict=True):
        expected = [loss(mutator.freeze(sample), batch).item() for batch in batches(2)]
        assert one == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert all(torch.equal(mutator.state_dict()[name], value) for name, value in before.items())


def test_the_loss_is_taken_with_recalibrated_norms():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))
    (batch,) = batches(1)
    plain, calibrated = (held_out_loss(network, Task(loss, [batch], some)) for some in ([], [batch]))
    normed = (lambda x: (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), keepdim=True) + 1e-5).sqrt())(
        network[0](batch[0])
    )
    assert calibrated == pytest.approx(F.mse_loss(normed, batch[1]).item(), rel=1e-4) and plain != calibrated


def test_short_training_takes_its_steps_with_a_rate_that_falls_to_zero():
    network, rates = nn.Conv2d(1, 4, 3, padding=1), []
    sgd = torch.optim.SGD(network.parameters(), lr=0.4)

    def watched(model, batch):
        rates.append(sgd.param_groups[0]["lr"])
        return loss(model, batch)

    before = held_out_loss(network, Task(loss, batches(2)))
    train_briefly(network, watched, [sgd], batches(2), steps=4)
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert held_out_loss(network, Task(loss, batches(2))) < before


def test_gradients_are_clipped_where_told():
    moves = []
    for clip in (None, 1e-3):
        torch.manual_seed(0)
        network = nn.Conv2d(1, 4, 1)
        before = network.weight.detach().clone()
        train_briefly(network, loss, [torch.optim.SGD(network.parameters(), lr=1.0)], batches(1), 1, clip)
        moves.append((network.weight.detach() - before).norm().item())
    assert moves[1] <= 1e-3 < moves[0]
