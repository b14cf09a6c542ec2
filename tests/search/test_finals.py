"""The end of a search: the best few are trained briefly, and the best after that is exported."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.experiment import NasExperiment
from pytorch_lightning import Callback

from nni_dynconv import DynamicWeightMutator, EnasSampler, FairSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import RankError
from nni_dynconv.samplers import check_sample
from nni_dynconv.search.ending import contenders_of
from nni_dynconv.search.finals import Finals, finals
from nni_dynconv.search.ranking import Task

pytestmark = pytest.mark.usefixtures("own_nni_folders")


def search(sampler, **options):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=sampler)
    task = evaluator(epochs=1, batches=4)
    NasExperiment(mutator.space, task, mutator.strategy(**{"contenders": 8, **options})).run()
    return mutator


@pytest.mark.parametrize("sampler", [FairSampler, GdasSampler])
def test_a_search_ends_by_training_the_best_few_and_says_what_it_cost(sampler, capsys):
    mutator = search(sampler(seed=0), rerank=3, rerank_steps=20)
    said = capsys.readouterr().out
    assert "Re-ranked the best 3 architectures by 20 steps of training each" in said and "`rerank=0`" in said
    assert mutator.export() == mutator.sampler.settled is not None
    check_sample(mutator.export(), mutator.choices)


def test_rerank_0_leaves_it_to_the_sampler(capsys):
    mutator = search(EnasSampler(seed=0), rerank=0)
    assert "Re-ranked" not in capsys.readouterr().out
    assert mutator.sampler.settled is None and mutator.export() == mutator.sampler.best()


def test_without_contenders_nothing_is_compared():
    mutator = search(RandomSampler(seed=0), contenders=0)
    assert mutator.sampler.settled is None and not mutator.sampler.memory()["rewards"]


def test_a_new_search_forgets_what_the_last_one_settled_on():
    mutator = search(RandomSampler(seed=0), rerank=2, rerank_steps=5)
    assert mutator.sampler.settled is not None
    NasExperiment(mutator.space, evaluator(1, 2), mutator.strategy(contenders=8, rerank=0)).run()
    assert mutator.sampler.settled is None


def test_what_was_settled_on_is_kept_in_the_state():
    mutator = DynamicWeightMutator(ToySpace(), sampler=GdasSampler(seed=0))
    wanted = {"first": "1", "last": "static"}
    mutator.sampler.settle(wanted)
    other = DynamicWeightMutator(ToySpace(), sampler=GdasSampler(seed=1))
    other.load_state_dict(mutator.state_dict())
    assert other.export() == mutator.export() == wanted
    other.sampler.settle(None)
    assert other.export() == other.sampler.best()


def test_a_learned_sampler_offers_the_most_probable_first():
    mutator = DynamicWeightMutator(ToySpace(), sampler=GdasSampler(seed=0))
    mutator.sampler.alpha("first").data = torch.tensor([0.0, 1.0])
    mutator.sampler.alpha("last").data = torch.tensor([0.0, 0.5])
    found = contenders_of(mutator, 64)
    assert [(one["first"], one["last"]) for one in found] == [
        ("3", "static"),
        ("3", "dynamic"),
        ("1", "static"),
        ("1", "dynamic"),
    ]


def test_the_winner_is_the_best_after_training_and_the_supernet_stays():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0), base="learned")
    x = torch.rand(8, 1, 8, 8)
    batch = x, F.avg_pool2d(x, 3, 1, 1)
    before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
    samples = [{"first": first, "last": "static"} for first in ("1", "3")]
    found = finals(
        mutator,
        samples,
        Task(lambda network, batch: F.mse_loss(network(batch[0]), batch[1]), [batch]),
        [batch],
        lambda network: [torch.optim.Adam(network.parameters(), lr=0.02)],
        steps=60,
    )
    assert found.winner == samples[1] and found.after[1] < found.after[0] and found.after[1] < found.before[1]
    assert all(torch.equal(value, before[name]) for name, value in mutator.space.state_dict().items())


def test_the_words_name_the_winners_place_and_losses():
    found = Finals([{"op": "a"}, {"op": "b"}], before=[0.5, 0.6], after=[0.4, 0.25], steps=50, seconds=1.24)
    assert found.winner == {"op": "b"}
    assert "(1.2 s): number 2 is exported, held-out loss 0.6000 before, 0.2500 after" in str(found)


NAN = float("nan")


def test_a_training_that_diverged_does_not_win():
    """The first whose loss is no number used to."""
    found = Finals([{"op": "a"}, {"op": "b"}], before=[0.5, 0.6], after=[NAN, 0.2], steps=5, seconds=1.0)
    assert found.winner == {"op": "b"}
    diverged = Finals([{"op": "a"}, {"op": "b"}], before=[NAN, 0.6], after=[NAN, NAN], steps=5, seconds=1.0)
    assert diverged.winner == {"op": "b"}


def test_where_every_loss_is_no_number_there_is_no_winner():
    found = Finals([{"op": "a"}, {"op": "b"}], before=[NAN, NAN], after=[NAN, NAN], steps=5, seconds=1.0)
    with pytest.raises(RankError, match="None of 2 architectures has a finite held-out loss.*gradient_clip_val"):
        found.winner  # noqa: B018


@pytest.mark.parametrize("diverged", ["1", "3"])
def test_contenders_whose_loss_is_no_number_come_last(diverged):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    # in training it would spoil what the others share
    mutator.space.first[diverged].register_forward_hook(lambda op, args, y: y if op.training else y * NAN)
    NasExperiment(mutator.space, evaluator(1, 4), mutator.strategy(contenders=16, rerank=0)).run()
    assert mutator.export()["first"] != diverged


class Normed(ToySpace):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(super().forward(x))


class Failure(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        assert not module.mutator.space.norm.weight.requires_grad
        raise ValueError("out of memory")


def test_validation_is_by_statistics_of_the_architectures_own_and_the_supernets_come_back(monkeypatch):
    """It used to be by the supernet's, a mixture over all architectures."""
    mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0))
    norm, task, seen = mutator.space.norm, evaluator(1, 4), []
    step = task.module.validation_step

    def validation_step(*args):
        seen.append((norm.running_mean.clone(), norm.num_batches_tracked.item(), norm.training))
        return step(*args)

    class Statistics(Callback):
        def on_train_batch_end(self, *_):
            self.trained = norm.running_mean.clone()

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                assert torch.equal(norm.running_mean, self.trained) and norm.momentum == 0.1

    monkeypatch.setattr(task.module, "validation_step", validation_step)
    task.trainer.callbacks.append(Statistics())
    strategy = mutator.strategy(contenders=0, calibration_batches=2)
    strategy.mutate_evaluator(task).search(mutator.space)
    in_epoch = [one for one in seen if one[1] == 2]
    assert len(in_epoch) == 4 and not any(training for *_, training in seen)
    assert norm.num_batches_tracked == 4 and norm.training


def test_statistics_come_back_after_a_validation_that_failed():
    class Broken(Callback):
        def on_validation_batch_start(self, trainer, module, *_):
            if not trainer.sanity_checking:
                raise ValueError("broken batch")

    mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0))
    task = evaluator(1, 4)
    task.trainer.callbacks.append(Broken())
    with pytest.raises(ValueError, match="broken batch"):
        mutator.strategy(contenders=0, calibration_batches=2).mutate_evaluator(task).evaluate(mutator.space)
    assert mutator.space.norm.num_batches_tracked == 4 and mutator.space.norm.momentum == 0.1


def test_calibration_draws_nothing_that_a_search_would_have_drawn():
    found = []
    for batches in (0, 4):
        torch.manual_seed(0)
        mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0))
        options = {"contenders": 0, "calibration_batches": batches}
        NasExperiment(mutator.space, evaluator(2, 4), mutator.strategy(**options)).run()
        found.append((mutator.space.state_dict(), torch.get_rng_state()))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_affine_maps_learn_again_after_a_search_that_failed():
    mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0))
    task = evaluator(1, 4)
    task.trainer.callbacks.append(Failure())
    strategy = mutator.strategy(contenders=0, norm_affine=False)
    with pytest.raises(ValueError, match="out of memory"):
        strategy.mutate_evaluator(task).evaluate(mutator.space)
    assert all(one.requires_grad for one in mutator.space.norm.parameters())


def test_affine_maps_stand_still_during_a_search_that_is_told_so():
    for option, learned in ((True, True), (False, False)):
        mutator = DynamicWeightMutator(Normed(), sampler=RandomSampler(0))
        options = {"contenders": 0, "norm_affine": option}
        NasExperiment(mutator.space, evaluator(1, 4), mutator.strategy(**options)).run()
        norm = mutator.space.norm
        assert (norm.weight.item() != 1.0) == learned and norm.weight.requires_grad


def test_a_learned_sampler_offers_its_most_probable_and_each_once():
    """They used to be the most probable of 32 draws."""
    mutator = DynamicWeightMutator(ToySpace(), sampler=EnasSampler(seed=0))
    sampler = mutator.sampler
    found = contenders_of(mutator, 3)
    assert found == sampler.most_probable(3).samples and len(found) == 3
    assert float(sampler.log_prob(found[2])) <= float(sampler.log_prob(found[0]))


def test_where_it_is_not_proven_that_they_are_the_most_probable_it_is_said(monkeypatch):
    mutator = DynamicWeightMutator(ToySpace(), sampler=EnasSampler(seed=0))
    found = mutator.sampler.most_probable(2)
    monkeypatch.setattr(mutator.sampler, "most_probable", lambda count: found._replace(proven=False))
    with pytest.warns(UserWarning, match="The 2 architectures that are compared in the end .*not proven"):
        assert contenders_of(mutator, 2) == found.samples


def test_rewards_of_other_weights_are_forgotten():
    """A second search used to export what the first one's weights did best."""
    mutator = search(RandomSampler(seed=0), rerank=0)
    for place, one in enumerate(contenders_of(mutator, 16)):
        mutator.sampler.observe(one, 1e6 + place)
    wrong = mutator.export()
    NasExperiment(mutator.space, evaluator(1, 2), mutator.strategy(contenders=16, rerank=0)).run()
    assert all(total / count < 1 for total, count in mutator.sampler._rewards.values()), wrong


def test_the_winner_is_told_by_batches_that_did_not_choose_it():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(ToySpace(), sampler=RandomSampler(0))
    x = torch.rand(8, 1, 8, 8)
    batch, other = (x, F.avg_pool2d(x, 3, 1, 1)), (x, 5 + x)
    loss, samples = (lambda network, one: F.mse_loss(network(one[0]), one[1])), [{"first": "1", "last": "static"}] * 2
    how = [batch], lambda network: [torch.optim.Adam(network.parameters(), lr=0.02)]
    alone, both = (finals(mutator, samples, Task(loss, [batch], (), more), *how, steps=2) for more in ([], [other]))
    assert alone.elsewhere is None and "on the batches that chose it, so rather too low" in str(alone)
    assert both.before == alone.before and both.elsewhere[0][0] > 10 < both.elsewhere[1][0]
    assert f"{both.elsewhere[1][0]:.4f} after (on batches that choose nothing)" in str(both)
