"""What a sampler learns by, in a loop of one's own: no norm behind a choice hides it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from planted import NORMS, Branches, batch_of

from nni_dynconv import DartsSampler, DynamicWeightMutator, EnasSampler, GdasSampler
from nni_dynconv.errors import LearningError, NotFiniteError, ScopeError


def made(sampler, norm="batch"):
    torch.manual_seed(0)
    return DynamicWeightMutator(Branches(norm), sampler=sampler, base="learned")


def loss_on(mutator, seed=0):
    x, y = batch_of(mutator.space, torch.Generator().manual_seed(seed))
    return F.mse_loss(mutator(x), y)


def size_of_gradient(mutator, draws=8):
    """Return the root mean square of the logits' gradient, over some draws."""
    squares = []
    for draw in range(draws):
        mutator.zero_grad()
        mutator.architecture_loss(lambda seed=draw: loss_on(mutator, seed)).backward()
        squares += [one.grad.square().mean() for one in mutator.sampler.alphas]
    return float(torch.stack(squares).mean().sqrt())


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_behind_a_choice_does_not_hide_the_gradient(norm):
    """A batch or group normalisation left a ten-thousandth of it: it cancels the factor on the chosen output."""
    assert size_of_gradient(made(GdasSampler(0), norm)) > 1e-2
    through_the_factor = size_of_gradient(made(GdasSampler(0, paths=1), norm))
    assert through_the_factor > 1e-3 if norm == "none" else through_the_factor < 1e-4


def test_only_the_sampler_learns_of_paths_that_are_compared():
    mutator = made(GdasSampler(0))
    loss = mutator.architecture_loss(lambda: loss_on(mutator))
    mutator.zero_grad()
    loss.backward()
    assert all(one.grad is None for one in mutator.space.parameters())
    assert all(one.grad is not None for one in mutator.sampler.alphas)
    assert mutator.sample is not None and loss_on(mutator).requires_grad


@pytest.mark.parametrize("paths", [2, 3])
def test_each_architecture_that_is_drawn_runs_once(paths):
    mutator, ran = made(GdasSampler(0, paths=paths)), []

    def run():
        ran.append(dict(mutator.sample))
        return loss_on(mutator)

    mutator.architecture_loss(run)
    assert 1 <= len(ran) <= paths and all(one not in ran[:place] for place, one in enumerate(ran))
    with torch.no_grad():
        for alpha in mutator.sampler.alphas:
            alpha[0] = 50.0
    ran.clear()
    mutator.zero_grad()
    mutator.architecture_loss(run).backward()
    assert len(ran) == 1 and all(not one.grad.any() for one in mutator.sampler.alphas)


def test_the_mixture_of_all_candidates_runs_once_with_gradient():
    mutator, ran = made(DartsSampler(0)), []

    def run():
        ran.append(loss_on(mutator))
        return ran[-1]

    assert mutator.architecture_loss(run) is ran[0] and len(ran) == 1 and ran[0].requires_grad


def test_a_step_that_the_loss_leaves_out_teaches_nothing():
    mutator = made(GdasSampler(0))
    assert mutator.architecture_loss(lambda: None) is None


def test_a_loss_that_is_no_number_is_refused_in_the_backward():
    mutator = made(GdasSampler(0))
    losses = iter([1.0, float("nan")])
    with pytest.raises(NotFiniteError, match="The gradient of label `.*` of GdasSampler is .*zero_grad"):
        mutator.architecture_loss(lambda: torch.tensor(next(losses))).backward()


def test_a_sampler_that_learns_otherwise_says_by_what():
    with pytest.raises(LearningError, match=r"EnasSampler does not learn by a loss's gradient.*`sampler.observe"):
        made(EnasSampler(0)).architecture_loss(lambda: torch.zeros(()))
    with pytest.raises(ScopeError, match="sampler=False"):
        made(False).architecture_loss(lambda: torch.zeros(()))
