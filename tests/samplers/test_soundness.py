"""What a sampler learns from and draws from is finite numbers; what cannot teach it says so."""

from __future__ import annotations

import copy
import io
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from nni_dynconv import DartsSampler, EnasSampler, FairSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import DynConvError, LearningError, NotFiniteError, SampleError
from nni_dynconv.samplers import Choice

CHOICES = {"op": Choice("op", ("a", "b", "c")), "depth": Choice("depth", (1, 2))}
SAMPLE = {"op": "b", "depth": 1}
BY_REWARD = [RandomSampler, FairSampler, EnasSampler]
BY_GRADIENT = [DartsSampler, GdasSampler]
BAD = [float("nan"), float("inf"), -float("inf"), 1e39, -3.5e38, -1e300, 1e31]


def bound(make):
    sampler = make(seed=0)
    sampler.bind(CHOICES)
    return sampler


def finite(state):
    return all(one.isfinite().all() for one in state.values() if isinstance(one, torch.Tensor))


@pytest.mark.parametrize("reward", BAD)
@pytest.mark.parametrize("make", BY_REWARD)
def test_a_reward_that_is_no_number_or_too_large_teaches_nothing_and_says_so(make, reward):
    """One of -3.5e38 made the averages of ENAS no numbers, then its policy, then the saved state."""
    taught, spared = bound(make), bound(make)
    for sampler in (taught, spared):
        sampler.observe(SAMPLE, 0.5)
    words = rf"The reward {reward:g} of architecture {{'op': 'b', 'depth': 1}} is .*: {make.__name__} learns nothing"
    with pytest.warns(UserWarning, match=words.replace("+", r"\+")) as said:
        taught.observe(SAMPLE, reward)
    assert said[0].filename == __file__
    for sampler in (taught, spared):
        sampler.observe(SAMPLE, 0.7)
    assert [taught.sample() for _ in range(9)] == [spared.sample() for _ in range(9)]
    assert taught.best() == spared.best() and finite(taught.state_dict())


@pytest.mark.parametrize(
    "reward", ["0.5", None, {"default": 0.5}, 1 + 2j, [0.5], torch.ones(2), b"1"], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("make", BY_REWARD)
def test_what_is_no_number_at_all_is_refused_as_a_reward(make, reward):
    sampler = bound(make)
    with pytest.raises(LearningError, match=rf"`{make.__name__}.observe` takes .* one real number.* got a \w+: .*Give"):
        sampler.observe(SAMPLE, reward)
    assert finite(sampler.state_dict())


@pytest.mark.parametrize("reward", [10**400, -(10**400)])
def test_an_integer_of_hundreds_of_digits_teaches_nothing_and_says_so(reward):
    sampler = bound(EnasSampler)
    before = copy.deepcopy(sampler.state_dict())
    with pytest.warns(UserWarning, match="more than 300 digits .* is larger than 1e"):
        sampler.observe(SAMPLE, reward)
    torch.testing.assert_close(sampler.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("reward", [np.float32(0.5), np.int64(1), torch.tensor(0.5), True, Fraction(1, 2)])
def test_numbers_of_other_libraries_are_rewards(reward):
    bound(EnasSampler).observe(SAMPLE, reward)


def test_the_largest_rewards_of_both_signs_leave_finite_averages():
    sampler = bound(EnasSampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(40):
            sampler.observe(sampler.sample(), 1e30 * (-1) ** step)
    assert finite(sampler.state_dict()) and sampler.probabilities("op").isfinite().all()


def test_a_policy_whose_own_loss_is_no_number_does_not_step():
    sampler = bound(EnasSampler)
    sampler.entropy_weight = float("inf")
    before = copy.deepcopy(sampler.state_dict())
    with pytest.raises(NotFiniteError, match="cannot learn from the reward 0.5 of architecture .*`entropy_weight`"):
        sampler.observe(SAMPLE, 0.5)
    torch.testing.assert_close(sampler.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("reward", [1.0, *BAD])
@pytest.mark.parametrize("make", BY_GRADIENT)
def test_a_sampler_that_learns_by_gradient_says_that_a_reward_teaches_it_nothing(make, reward):
    """A plain loop that observed with GDAS used to end with the start's draws, without a word."""
    with pytest.raises(LearningError, match=f"{make.__name__} learns by a loss's gradient.*optimizer.*EnasSampler"):
        bound(make).observe(SAMPLE, reward)
    assert issubclass(LearningError, DynConvError) and issubclass(LearningError, RuntimeError)


def step(sampler, value=1.0):
    sampler.sample()
    (sampler.relaxed("op") @ torch.tensor([1.0, 2.0, 4.0]).to(sampler.alpha("op")) * value).backward()


def steps(sampler, count):
    for _ in range(count):
        step(sampler)


def copied(sampler):
    return copy.deepcopy(sampler)


def unpickled(sampler):
    buffer = io.BytesIO()
    torch.save(sampler, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def converted(sampler):
    return sampler.double()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e25])
@pytest.mark.parametrize("as_is", [lambda sampler: sampler, copied, unpickled, converted])
@pytest.mark.parametrize("make", BY_GRADIENT)
def test_a_gradient_that_is_no_number_or_too_large_is_refused_in_the_backward(make, as_is, value):
    if as_is is converted and value == 1e25:
        value = 1e200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = as_is(bound(make))
    step(sampler)
    sampler.zero_grad()
    optimizer = torch.optim.Adam(sampler.parameters())
    with pytest.raises(NotFiniteError, match=f"The gradient of label `op` of {make.__name__} is .*zero_grad"):
        step(sampler, value)
    optimizer.step()
    assert finite(sampler.state_dict()) and sampler.sample()


@pytest.mark.parametrize("make", BY_GRADIENT)
def test_whoever_steps_the_optimizer_may_look_at_gradients_itself(make):
    sampler = bound(make)
    with sampler.watch.sleeping():
        step(sampler, float("nan"))
    assert sampler.alpha("op").grad.isnan().any()


@pytest.mark.parametrize("make", [EnasSampler, *BY_GRADIENT])
def test_logits_that_are_no_numbers_are_named_where_one_is_drawn(make):
    """They died in the words of `torch.multinomial`, or were exported."""
    sampler = bound(make)
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.fill_(float("nan"))
    words = f"{make.__name__} cannot choose: the logits of label `op` are .*nan.*load_state_dict"
    with pytest.raises(NotFiniteError, match=words):
        sampler.sample()
    with pytest.raises(NotFiniteError, match=words):
        sampler.best()


@pytest.mark.parametrize("make", BY_GRADIENT)
def test_a_sampler_that_is_not_bound_says_so(make):
    with pytest.raises(SampleError, match=f"{make.__name__} does not know the space yet"):
        make().sample()


@pytest.mark.parametrize("make", BY_GRADIENT)
def test_parameters_that_no_optimizer_has_are_told_of_once(make):
    sampler = bound(make)
    with pytest.warns(UserWarning, match=f"{make.__name__} got the gradients of 100 steps and never changed") as said:
        steps(sampler, 250)
    assert len(said) == 1


@pytest.mark.parametrize("make", BY_GRADIENT)
def test_parameters_that_an_optimizer_has_are_not_told_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for optimizer_of in (lambda one: torch.optim.SGD(one.parameters(), lr=0.1), lambda one: one.optimizer()):
            sampler = bound(make)
            optimizer = optimizer_of(sampler)
            for number in range(250):
                optimizer.zero_grad()
                step(sampler)
                if number % 10 == 0:  # as where weights learn more often
                    optimizer.step()


@pytest.mark.parametrize("make", [EnasSampler, *BY_GRADIENT])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_parameters_keep_float32_where_a_network_goes_to_16_bits(make, dtype):
    """A logit near 1 does not move by a step of 0.003 there, and a baseline not at all."""
    sampler = bound(make).to(dtype)
    assert {one.dtype for one in sampler.parameters()} == {torch.float32}
    assert {one.dtype for one in sampler.double().parameters()} == {torch.float64}


@pytest.mark.parametrize("make", [RandomSampler, FairSampler])
def test_asking_for_the_best_before_anything_is_known_leaves_the_draws_as_they_are(make):
    """Each was a draw: a search that was validated more often drew otherwise, and so did one that was resumed."""
    asked, left = bound(make), bound(make)
    for _ in range(7):
        assert asked.best() == asked.best()
        assert asked.sample() == left.sample()
