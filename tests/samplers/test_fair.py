"""Strict fairness: rounds in which each candidate stands once."""

from __future__ import annotations

import copy
from collections import Counter

from nni_dynconv import FairSampler
from nni_dynconv.testing.suites import SamplerSuite


class TestFair(SamplerSuite):
    def make(self, seed):
        return FairSampler(seed)

    def test_in_each_round_every_candidate_of_a_label_is_drawn_once(self):
        sampler = self._bound()
        for _ in range(5):
            drawn = self._samples(sampler, 6)  # two rounds of three candidates, three of two
            assert Counter(sample["first"] for sample in drawn[:3]) == Counter("abc")
            assert Counter(sample["depth"] for sample in drawn) == {1: 3, 2: 3}

    def test_rounds_are_in_orders_of_their_own(self):
        sampler = self._bound()
        rounds = [tuple(sample["first"] for sample in self._samples(sampler, 3)) for _ in range(20)]
        assert len(set(rounds)) > 3

    def test_labels_are_not_in_step(self):
        pairs = Counter((sample["first"], str(sample["inputs"])) for sample in self._samples(self._bound(), 300))
        assert len(pairs) == 9

    def test_asking_for_the_best_takes_nothing_from_a_round(self):
        for seed in range(8):
            sampler = self._bound(seed)
            first = sampler.sample()["first"]
            sampler.best()
            assert {first, *(sample["first"] for sample in self._samples(sampler, 2))} == set("abc")

    def test_a_round_goes_on_from_a_state(self):
        sampler, other = self._bound(1), self._bound(2)
        sampler.sample()
        other.load_state_dict(copy.deepcopy(sampler.state_dict()))
        assert self._samples(other, 5) == self._samples(sampler, 5)

    def test_a_round_comes_with_what_the_coming_draws_depend_on(self):
        sampler, other = self._bound(1), self._bound(2)
        sampler.sample()
        other.set_draw_state(copy.deepcopy(sampler.draw_state()))
        assert self._samples(other, 5) == self._samples(sampler, 5)

    def test_the_best_observed_is_the_best(self):
        sampler = self._bound()
        for reward, sample in enumerate(self._all_samples()):
            sampler.observe(sample, -abs(reward - 7.0))
        assert sampler.best() == self._all_samples()[7]
