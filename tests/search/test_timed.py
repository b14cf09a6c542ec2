"""A run whose time is limited keeps enough of it for what comes after the search, and says what it cut."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interrupted import Counted, Killed, Searched, same, wave_evaluator

from nni_dynconv import GdasSampler, RandomSampler
from nni_dynconv.runs import Run
from nni_dynconv.search.timed import Allotted, Needs, TimeLimit, allotted_by
from nni_dynconv.search.timed.needs import Tempo
from nni_dynconv.settings import StrategySettings

pytestmark = pytest.mark.usefixtures("own_nni_folders")

finite = st.floats(0.0, 1e6)


class Ticking(Counted):
    """Every step takes a second, and a quarter of one without gradients, of a clock that nothing else moves."""

    def __init__(self, kill_at=None, first=1.0):
        super().__init__(kill_at)
        self.now, self.first = 1000.0, first

    def monotonic(self):
        return self.now

    def step(self):
        self.now += self.first if self.steps == 0 else 1.0 if torch.is_grad_enabled() else 0.25
        super().step()


@pytest.fixture
def ticking(monkeypatch):
    """Give what lets a run's clock go by a run's own steps."""

    def begin(kill_at=None, **options):
        counted = Ticking(kill_at, **options)
        monkeypatch.setattr("nni_dynconv.search.resuming.keeper.time", counted)
        return counted

    return begin


def searched(counted, folder, seconds, sampler=RandomSampler, epochs=4, trainer=None, **options):
    evaluator = partial(wave_evaluator, count=24, epochs=epochs, **(trainer or {}))
    small = {"contenders": 2, "contender_batches": 1, "rerank": 2, "rerank_steps": 1}
    small |= {"final_epochs": 2, "calibration_batches": 1}
    options = {**small, "allotted": Allotted(seconds), **options}
    return Searched(sampler, folder, evaluator=lambda _: evaluator(counted), **options).run()


def epochs_of(folder, phase):
    return [one["epoch"] for one in Run(folder).history.of("epoch") if one["phase"] == phase]


@pytest.mark.whole
def test_a_search_that_is_too_long_ends_early_enough_for_its_final_training(ticking, tmp_path, capsys):
    """Six steps an epoch: the search would take 24 s of 45, and the final training 12, with the re-ranking between."""
    found = searched(ticking(), tmp_path, seconds=45.0)
    trained, (cut,) = found.strategy.trained, found.strategy.trained.cut
    assert "The search was ended after batch" in cut and "of epoch 3 of 4" in cut
    assert "s were left for re-ranking and the final training, of the 45 s that this run may take" in cut
    assert trained.epochs == 2 and epochs_of(tmp_path, "final training") == [0, 1], "which was not cut"
    said = capsys.readouterr().out
    assert f"CUT: {cut}" in said
    assert Run(tmp_path).facts["cut"] == [cut] and Run(tmp_path).told() == [f"CUT: {cut}"]
    assert cut in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert cut in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["cut"]


@pytest.mark.whole
def test_time_that_is_enough_changes_nothing_to_the_last_bit(ticking, tmp_path):
    expected = searched(ticking(), tmp_path / "free", seconds=math.inf, sampler=GdasSampler, epochs=2).state
    limited = searched(ticking(first=9.0), tmp_path / "limited", seconds=400.0, sampler=GdasSampler, epochs=2)
    assert same(limited.state, expected) and limited.strategy.trained.cut == []


@pytest.mark.whole
def test_a_final_training_that_is_too_long_has_half_of_the_time_and_is_cut_itself(ticking, tmp_path):
    counted = ticking()
    found = searched(counted, tmp_path, seconds=40.0, final_epochs=100)
    first, second = found.strategy.trained.cut
    assert "The search was ended after batch" in first
    assert "The final training was ended after batch" in second and "of 100" in second
    assert "measuring and writing what it trained" in second
    assert 14 <= found.strategy.trained.seconds <= 22 and counted.now - 1000.0 <= 40.0


def test_no_network_is_delivered_untrained_where_time_is_over_already(ticking, tmp_path):
    found = searched(ticking(), tmp_path, seconds=1.0)
    assert found.strategy.trained.epochs == 1
    assert "batch 1 of 6 of epoch 1 of 2: 0 s were left" in found.strategy.trained.cut[1]
    assert "NOT TRAINED" not in str(found.strategy.trained)


@pytest.mark.whole
def test_without_a_number_of_epochs_search_and_final_training_share_the_time(ticking, tmp_path):
    counted = ticking()
    found = searched(counted, tmp_path, seconds=40.0, epochs=-1, final_epochs=None)
    assert len(found.strategy.trained.cut) == 2 and found.strategy.trained.epochs > 0
    assert 30.0 < counted.now - 1000.0 <= 40.0


@pytest.mark.whole
def test_a_comparison_that_does_not_fit_is_left_out_and_said(ticking, tmp_path, capsys):
    options = {"baselines": {"random": 1, "static": False, "shuffled": False}, "epochs": 1}
    found = searched(ticking(), tmp_path, seconds=50.0, **options)
    (cut,) = found.strategy.trained.cut
    assert "The comparison with baselines was left out: it takes about 29 s, and" in cut
    assert f"CUT: {cut}" in capsys.readouterr().out and Run(tmp_path).facts["cut"] == [cut]
    assert found.strategy.comparison is None and Run(tmp_path).problems == {}


@pytest.mark.whole
def test_the_sampler_reaches_the_end_of_its_schedule_in_a_search_that_is_cut(ticking, tmp_path):
    sampler = searched(ticking(), tmp_path, seconds=50.0, sampler=GdasSampler, epochs=80).mutator.sampler
    assert sampler.tau < sampler.tau_end + 0.3 * (sampler.tau_start - sampler.tau_end), "a search of 80 epochs was cut"


@pytest.mark.whole
def test_a_run_that_goes_on_has_spent_what_it_took_before_the_kill(ticking, tmp_path):
    """Its time used to begin anew with each process."""
    with pytest.raises(Killed):
        searched(ticking(kill_at=14), tmp_path, seconds=45.0, checkpoint_minutes=0.0)
    counted = ticking()
    found = searched(counted, tmp_path, seconds=45.0, checkpoint_minutes=0.0)
    assert "of epoch 3 of 4" in found.strategy.trained.cut[0]
    assert found.strategy.trained.epochs == 2 and counted.now - 1000.0 <= 45.0 - 12.0


@pytest.mark.slow
def test_what_was_cut_before_a_kill_is_told_after_it(ticking, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nni_dynconv.search.resuming.keeper.SECONDS", -1.0)
    for kill_at in (24, 3):  # in the re-ranking, and then in what is left
        with pytest.raises(Killed):
            searched(ticking(kill_at), tmp_path, seconds=45.0)
    said = capsys.readouterr().out
    (cut,) = searched(ticking(), tmp_path, seconds=45.0).strategy.trained.cut[:1]
    assert said.count("CUT: The search was ended after batch") == 1 and f"CUT: {cut}" in said


@pytest.mark.slow
def test_steps_and_seconds_of_the_history_go_on_counting_where_a_run_does(ticking, tmp_path):
    """Steps began anew at zero in each process, so that the report's line went back."""
    with pytest.raises(Killed):
        searched(ticking(kill_at=14), tmp_path, seconds=math.inf, log_every=1, checkpoint_minutes=0.0)
    searched(ticking(), tmp_path, seconds=math.inf, log_every=1, checkpoint_minutes=0.0)
    history = Run(tmp_path).history
    assert [one["step"] for one in history.of("step")] == list(range(25))
    (ended,) = history.of("searched")
    assert ended["steps"] == 24 and ended["seconds"] >= 23.0


@pytest.mark.slow
def test_the_time_of_a_trainer_is_that_of_the_whole_run_and_goes_on_after_a_kill(tmp_path):
    """Lightning's own timer, and the pace of the sampler, which used to be back at its start."""
    options = {"epochs": 3, "sampler": GdasSampler, "trainer": {"max_time": {"hours": 1}}, "checkpoint_minutes": 0.0}
    with pytest.raises(Killed):
        searched(Counted(kill_at=20), tmp_path, math.inf, **options)

    class Seen(Counted):
        def step(self):
            super().step()
            if self.steps == 1:
                module = search[0].strategy._module
                seen.append((module.clock.start, module.in_time.limit.seconds, module.in_time.limit.spent))

    seen, search, begin = [], [], Searched.run
    started = lambda self: (search.append(self), begin(self))[1]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Searched, "run", started)
        found = searched(Seen(), tmp_path, math.inf, **options)
    ((start, seconds, spent),) = seen
    assert start is not None and seconds == 3600.0 and spent > start, "as the earlier process had it"
    assert found.strategy.trained.cut == []


def test_what_a_trainer_has_in_time_is_its_timers():
    assert math.isinf(allotted_by(wave_evaluator(Counted()).trainer))
    assert allotted_by(wave_evaluator(Counted(), max_time="00:00:02:00").trainer) == 120.0


@given(seconds=finite, spent=finite, comparing=st.floats(0.0, math.inf), training=st.floats(0.0, math.inf))
def test_the_search_is_sure_of_a_quarter_and_the_final_training_of_half(seconds, spent, comparing, training):
    limit, little = TimeLimit(seconds, lambda: spent), 1e-9 * (seconds + spent)
    left = limit.for_search(comparing, training)
    assert seconds / 4 - spent - little <= left <= limit.left
    assert limit.left - left >= min(training, seconds / 2) - little


@given(step=finite, validation=finite, epochs=st.integers(0, 1000), batches=st.integers(1, 1000))
def test_what_comes_after_a_search_is_more_the_more_is_asked_for(step, validation, epochs, batches):
    tempo, settings = Tempo(step, validation, float(batches)), StrategySettings()
    plain = Needs(settings, epochs)
    assert plain.training(tempo) >= epochs * batches * step
    assert Needs(settings, epochs, selects=True).comparing(tempo) >= plain.comparing(tempo)
    assert Needs(StrategySettings(rerank=0), epochs).comparing(tempo) <= plain.comparing(tempo)


def test_of_an_epoch_without_a_length_nothing_is_known():
    endless = Tempo(0.1, 1.0, math.inf)
    assert math.isinf(Needs(StrategySettings(), 2).training(endless))
    assert Needs(StrategySettings(), 0).training(endless) == 0.0, "where nothing is trained"


def test_until_counts_from_now_and_seconds_from_the_beginning(monkeypatch):
    monkeypatch.setattr("nni_dynconv.search.timed.limit.time", SimpleNamespace(time=lambda: 5000.0))
    assert Allotted(until=5060.0).after(spent=100.0) == 160.0
    assert Allotted(seconds=120.0, until=5060.0).after(spent=100.0) == 120.0
    assert json.dumps(Allotted().after(1.0)) == "Infinity"
