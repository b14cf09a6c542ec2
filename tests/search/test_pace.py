"""How far a sampler's learning is, by whatever bounds the trainer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import Timer

from nni_dynconv.search.learning.pace import Clock, Pace, pace_of


def trainer(epoch=0, batches=10, max_epochs=None, max_steps=-1, global_step=0):
    return SimpleNamespace(
        current_epoch=epoch,
        num_training_batches=batches,
        max_epochs=max_epochs,
        max_steps=max_steps,
        global_step=global_step,
    )


def test_epochs_of_warm_up_do_not_count():
    assert pace_of(trainer(epoch=2, max_epochs=5), 3, warmup_epochs=2, accumulate=1, own_steps=1) == Pace(3, 30)


@pytest.mark.parametrize(
    ("own_steps", "accumulate", "expected"),
    [(1, 1, Pace(20, 45)), (0, 1, Pace(40, 90)), (0, 2, Pace(90, 190)), (1, 2, Pace(30, 190 / 3))],
)
def test_steps_at_most_are_those_of_both_optimizers(own_steps, accumulate, expected):
    """Ten batches of warm-up took 10 of 100 steps, or 5 where two make a step; 50 are done."""
    found = pace_of(trainer(epoch=3, max_steps=100, global_step=50), 0, 1, accumulate, own_steps)
    assert found == pytest.approx(expected)


def test_the_nearer_bound_counts():
    one = trainer(epoch=1, max_epochs=1000, max_steps=40, global_step=20)
    assert pace_of(one, 0, 0, 1, 1) == Pace(10, 20)
    assert pace_of(trainer(epoch=1, max_epochs=2, max_steps=4000, global_step=20), 0, 0, 1, 1) == Pace(10, 20)


@pytest.mark.parametrize("one", [trainer(max_epochs=-1), trainer(epoch=3, batches=math.inf, max_epochs=5)])
def test_what_nothing_bounds_stays_at_the_start(one):
    found = pace_of(one, 7, 0, 1, 1)
    assert found.progress == 0.0 and found.rate == 1.0


def test_a_single_step_is_the_first():
    assert Pace(0, 1).progress == 0.0 and Pace(0, 1).rate == 1.0


class Told(Timer):
    """A timer that is told how late it is."""

    def __init__(self, duration, now=0.0):
        super().__init__(duration)
        self.now = now

    def time_elapsed(self, stage=None):
        return self.now


def test_a_search_that_time_alone_bounds_goes_by_the_time_since_learning_began():
    """It used to stay at the start."""
    clock, timer = Clock(), Told({"seconds": 100}, now=20.0)
    one = SimpleNamespace(callbacks=[Told(None), timer])
    found = [clock.pace(one)]
    for timer.now in (60.0, 100.0):
        found.append(clock.pace(one))
    assert found == [Pace(0, 1000), Pace(500, 1000), Pace(1000, 1000)]
    assert [round(pace.progress, 2) for pace in found] == [0.0, 0.5, 1.0]
    for bound in (trainer(max_epochs=-1), trainer(batches=math.inf), trainer(max_epochs=1000)):
        assert pace_of(bound, 3, 0, 1, 1, found[1]) == found[1]
    assert pace_of(trainer(epoch=3, max_epochs=4), 9, 0, 1, 1, found[1]) == Pace(39, 40)


def test_without_a_bound_of_time_there_is_no_pace_by_it():
    assert Clock().pace(SimpleNamespace(callbacks=[])) is None
    assert Clock().pace(SimpleNamespace(callbacks=[Told(None)])) is None
