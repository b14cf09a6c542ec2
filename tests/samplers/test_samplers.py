"""Samplers pass their suite, and each finds the planted best architecture."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from devices import META, OneDevice
from often import by_default

from nni_dynconv.errors import SampleError, SpaceError
from nni_dynconv.samplers import Choice, DartsSampler, EnasSampler, GdasSampler, RandomSampler, check_sample, choices_of
from nni_dynconv.testing.suites import SamplerSuite


class TestRandom(SamplerSuite):
    def make(self, seed):
        return RandomSampler(seed)

    @pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
    def test_an_architecture_whose_reward_is_not_finite_is_not_the_best(self, reward):
        """The first that had none used to be it, whatever came after."""
        sampler = self._bound()
        worst, best = self._all_samples()[:2]
        sampler.observe(worst, reward)
        sampler.observe(best, -0.1)
        assert sampler.best() == best


class TestEnas(SamplerSuite):
    def make(self, seed):
        return EnasSampler(seed)

    def test_reward_raises_the_probability(self):
        sampler = self._bound()
        good = {"first": "b", "inputs": [0, 2], "depth": 2}
        before = float(sampler.log_prob(good).detach())
        for _ in range(30):
            sample = sampler.sample()
            sampler.observe(sample, sum(sample[label] == good[label] for label in good))
        assert float(sampler.log_prob(good).detach()) > before

    @pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
    def test_a_reward_that_is_not_finite_teaches_nothing(self, reward):
        """One of a diverged loss used to end the search: no draw was possible any more."""
        taught, spared = self._bound(), self._bound()
        for sampler, rewards in ((taught, (1.0, reward, 2.0)), (spared, (1.0, 2.0))):
            for one in rewards:
                sampler.observe({"first": "b", "inputs": [0, 2], "depth": 2}, one)
        assert torch.equal(taught.probabilities("first"), spared.probabilities("first"))
        assert taught.sample() == spared.sample()

    def test_the_scale_of_the_reward_does_not_matter(self):
        found = []
        for scale in (1.0, 1e-4):
            sampler = self._bound()
            for _ in range(20):
                sample = sampler.sample()
                sampler.observe(sample, scale * (sample["first"] == "b"))
            found.append(sampler.probabilities("first"))
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)

    def test_the_weight_of_the_entropy_goes_from_start_to_end_in_a_line(self):
        sampler = EnasSampler(0, entropy_weight=0.1, entropy_weight_end=0.02)
        found = []
        for progress in (0.0, 0.5, 1.0):
            sampler.anneal(progress)
            found.append(sampler.entropy_weight)
        assert found == pytest.approx([0.1, 0.06, 0.02])
        sampler = EnasSampler(0, entropy_weight=0.1)
        sampler.anneal(1.0)
        assert sampler.entropy_weight == 0.1


class TestDarts(SamplerSuite):
    def make(self, seed):
        return DartsSampler(seed)


class TestGdas(SamplerSuite):
    def make(self, seed):
        return GdasSampler(seed)

    def test_the_factor_of_the_drawn_candidate_is_one_and_carries_the_gradient(self):
        sampler = self._bound()
        sample = sampler.sample()
        number = self.choices["first"].index(sample["first"])
        factors = sampler.relaxed("first")
        torch.testing.assert_close(factors.detach(), torch.eye(3)[number])
        factors[number].backward()
        gradient = sampler.alpha("first").grad
        assert gradient[number] > 0 and (gradient.sum().abs() < 1e-6)

    def test_noise_is_drawn_once_for_each_sample(self):
        sampler = self._bound()
        sampler.sample()
        first = sampler.relaxed("first")
        torch.testing.assert_close(sampler.relaxed("first"), first)

    def test_draws_follow_the_logits(self):
        sampler = self._bound()
        sampler.alpha("first").data = torch.tensor([0.0, 1.0, 2.0])
        drawn = [sampler.sample()["first"] for _ in range(3000)]
        frequencies = torch.tensor([drawn.count(name) / 3000 for name in "abc"])
        torch.testing.assert_close(frequencies, sampler.probabilities("first"), rtol=0, atol=0.03)

    def test_the_temperature_falls_in_a_line(self):
        sampler = self._bound()
        taus = []
        for progress in (0.0, 0.5, 1.0, 2.0):
            sampler.anneal(progress)
            taus.append(sampler.tau)
        assert taus == [4.0, 2.25, 0.5, 0.5]


def test_the_best_of_a_random_search_is_the_best_on_average():
    sampler = RandomSampler(0)
    sampler.bind({"op": Choice("op", ("a", "b"))})
    for name, reward in (("a", 5.0), ("a", -5.0), ("b", 1.0)):
        sampler.observe({"op": name}, reward)
    assert sampler.best() == {"op": "b"}


@pytest.mark.parametrize("make", by_default(RandomSampler, of=[RandomSampler, EnasSampler], otherwise="slow"))
def test_a_planted_best_is_found_by_rewards_from_9_of_10_seeds(make):
    choices = {label: Choice(label, ("a", "b", "c", "d")) for label in ("one", "two", "three")}
    best = {"one": "c", "two": "a", "three": "d"}
    found = 0
    for seed in range(10):
        sampler, noise = make(seed), torch.Generator().manual_seed(seed)
        sampler.bind(choices)
        for _ in range(600):
            sample = sampler.sample()
            reward = sum(sample[label] == best[label] for label in best)
            sampler.observe(sample, reward + 0.3 * float(torch.randn((), generator=noise)))
        found += sampler.best() == best
    assert found >= 9


def test_the_first_reward_is_its_own_average_and_so_teaches_nothing():
    """What rounding left of its distance from the average used to count as a whole one."""
    chances = []
    for reward in (0.1, 0.7, 12345.6789):
        sampler = EnasSampler(0, entropy_weight=0.0)
        sampler.bind({"op": Choice("op", ("a", "b"))})
        before = sampler.probabilities("op")
        sampler.observe({"op": "a"}, reward)
        chances.append(torch.equal(sampler.probabilities("op"), before))
    assert all(chances)


class TestChoices:
    def test_a_space_gives_its_labels_and_candidates(self):
        from spaces import Everything

        choices = choices_of(Everything())
        assert set(choices) == {"outer", "inner", "shared", "inputs", "depth", "block0", "block1"}
        assert choices["inputs"].candidates == ([0, 1], [0, 2], [1, 2])
        assert choices["depth"].candidates == (0, 1, 2)

    def test_an_open_number_of_inputs_is_refused(self):
        from nni.mutable import CategoricalMultiple

        with pytest.raises(SpaceError, match="Label `x` leaves open how many it chooses"):
            choices_of(CategoricalMultiple([0, 1], label="x"))

    def test_a_number_out_of_a_range_is_refused(self):
        from nni.mutable import Numerical

        with pytest.raises(SpaceError, match="Label `x` is a Numerical, which is not supported"):
            choices_of(Numerical(0, 1, label="x"))

    choices: ClassVar = {"op": Choice("op", ("conv3", "conv5")), "flag": Choice("flag", (True, False))}

    def test_an_unknown_label_is_named(self):
        with pytest.raises(SampleError, match="The space has no label `opp`. Did you mean `op`?"):
            check_sample({"opp": "conv3", "flag": True}, self.choices)

    def test_a_missing_label_is_named(self):
        with pytest.raises(
            SampleError, match=r"The sample has no `flag`; it needs a candidate for each of \['op', 'flag'\]"
        ):
            check_sample({"op": "conv3"}, self.choices)

    def test_an_unknown_candidate_is_named(self):
        with pytest.raises(SampleError, match="Label `op` has no candidate 'conv7'. Did you mean `conv"):
            check_sample({"op": "conv7", "flag": True}, self.choices)

    def test_one_is_not_true(self):
        with pytest.raises(SampleError, match="Label `flag` has no candidate 1"):
            check_sample({"op": "conv3", "flag": 1}, self.choices)


class TestUse:
    def test_a_sampler_that_does_not_know_its_space_says_so(self):
        with pytest.raises(SampleError, match="EnasSampler does not know the space yet. Call `bind"):
            EnasSampler().sample()

    def test_a_sampler_serves_one_space(self):
        sampler = RandomSampler()
        sampler.bind({"op": Choice("op", (1, 2))})
        with pytest.raises(SampleError, match="RandomSampler serves .'op'. already"):
            sampler.bind({"other": Choice("other", (1, 2))})

    def test_an_unknown_label_is_refused(self):
        sampler = RandomSampler()
        sampler.bind({"op": Choice("op", (1, 2))})
        with pytest.raises(SampleError, match="The sampler has no label `x`"):
            sampler.probabilities("x")


@pytest.mark.parametrize("make", [EnasSampler, DartsSampler, GdasSampler, RandomSampler])
def test_probabilities_are_computed_where_the_parameters_are(make):
    """Each sum used to start on the CPU, so that no sampler could learn on a GPU."""
    sampler = make(0)
    choices = [Choice("first", ("a", "b", "c")), Choice("second", (1, 2))]
    sampler.bind({choice.label: choice for choice in choices})
    sampler.to(META)
    sample = {"first": "b", "second": 1}
    with OneDevice():
        log_prob, entropy = sampler.log_prob(sample), sampler.entropy(sample)
    assert log_prob.device == entropy.device == (torch.device("cpu") if make is RandomSampler else META)
