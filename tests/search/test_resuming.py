"""A search that was killed ends as one that was not, to the last bit: in an epoch, at its end, in what comes after."""

from __future__ import annotations

import json
import os
import random
import signal
from functools import partial

import nni
import pytest
import safetensors.torch
from interrupted import SAMPLERS, Counted, Killed, Searched, same, wave_evaluator
from often import by_default

from nni_dynconv import GdasSampler, RandomSampler
from nni_dynconv.errors import CheckpointError
from nni_dynconv.experiments.reporting import ReportMetric
from nni_dynconv.runs import Run
from nni_dynconv.search.closing.searching import TOLD

pytestmark = pytest.mark.usefixtures("own_nni_folders")

small = partial(wave_evaluator, count=12)
ENDS = [
    {},
    {"final_search": "evolution", "population": 2, "evaluations": 4, "objectives": ["parameters"], "pick": "knee"},
    {"sandwich": 1, "final_start": "scratch"},
]


def killed(sampler, folder, kill_at, **options):
    with pytest.raises(Killed):
        Searched(sampler, folder, kill_at, **options).run()


def whole(sampler, folder, **options):
    search = Searched(sampler, folder, **options).run()
    return search.state, search.counted.steps


@pytest.mark.whole
@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=SAMPLERS, otherwise="slow"))
def test_a_search_that_was_killed_again_and_again_ends_as_one_that_was_not(sampler, tmp_path):
    expected, steps = whole(sampler, tmp_path / "whole", evaluator=small)
    draws, folder, done = random.Random(sampler.__name__), tmp_path / "killed", 0
    options = {"evaluator": small, "checkpoint_minutes": 0.0}
    for left in (steps, steps // 2):
        kill_at = draws.randint(1, max(left // 2, 1))
        killed(sampler, folder, kill_at, **options)
        done += kill_at
    last = Searched(sampler, folder, **options).run()
    assert same(last.state, expected)
    assert done + last.counted.steps < 2 * steps, "it did not begin anew each time"
    assert not (folder / "checkpoints").exists(), "it is over"


@pytest.mark.whole
@pytest.mark.parametrize("options", by_default(ENDS[1], of=ENDS[1:]))
def test_the_end_of_a_search_goes_on_where_it_was(options, tmp_path, monkeypatch):
    monkeypatch.setattr("nni_dynconv.search.resuming.keeper.SECONDS", 0.0)
    sampler = RandomSampler if "sandwich" in options else GdasSampler
    expected, steps = whole(sampler, tmp_path / "whole", evaluator=small, **options)
    draws = random.Random(str(options))
    for kill_at in [draws.randint(2 * steps // 5, steps)]:
        folder = tmp_path / f"killed at {kill_at}"
        killed(sampler, folder, kill_at, evaluator=small, **options)
        last = Searched(sampler, folder, evaluator=small, **options).run()
        assert same(last.state, expected), f"killed at {kill_at} of {steps}"
        assert kill_at - 1 + last.counted.steps - steps <= 12, "three batches of an epoch, twice, and what was measured"


@pytest.mark.slow
@pytest.mark.parametrize("entrance", ["strategy", "experiment"])
def test_a_comparison_goes_on_where_it_was(entrance, tmp_path):
    options = {"baselines": {"random": 1}, "entrance": entrance}
    expected, steps = whole(GdasSampler, tmp_path / "whole", **options)
    assert same(Searched(GdasSampler, None, **options).run().state, expected), "a folder changes nothing"
    draws = random.Random(7)
    for kill_at in [draws.randint(1, steps) for _ in range(8)]:
        folder = tmp_path / f"killed at {kill_at}"
        killed(GdasSampler, folder, kill_at, **options)
        assert same(Searched(GdasSampler, folder, **options).run().state, expected), f"killed at {kill_at} of {steps}"


@pytest.mark.whole
def test_a_signal_ends_a_search_at_its_next_batch_and_nothing_is_done_twice(tmp_path, capsys):
    class Asked(Counted):
        def step(self):
            super().step()
            if self.steps == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    asked = Asked()
    with pytest.raises(SystemExit) as ended:
        Searched(RandomSampler, tmp_path, evaluator=lambda counted: small(asked)).run()
    said = capsys.readouterr().out
    assert ended.value.code == 128 + signal.SIGTERM
    assert "SIGTERM: the run ends with a checkpoint after this batch" in said
    assert "The same run, started again, goes on from" in said
    Searched(RandomSampler, tmp_path, evaluator=small).run()
    assert "The run goes on in its search, in epoch" in capsys.readouterr().out


@pytest.mark.whole
def test_a_signal_at_the_end_of_a_search_without_a_folder_ends_it():
    """Lightning takes note of SIGTERM, and looks at batches alone: the search went on to its end."""

    class Asked(Counted):
        def __init__(self, at=None):
            super().__init__()
            self.at = at

        def step(self):
            super().step()
            if self.steps == self.at:
                os.kill(os.getpid(), signal.SIGTERM)

    trained = 13  # steps, a validation before them too; then architectures are compared
    asked = Asked(trained + 5)
    with pytest.raises(SystemExit) as ended:
        Searched(RandomSampler, None, evaluator=lambda counted: small(asked)).run()
    assert ended.value.code == 128 + signal.SIGTERM and asked.steps < trained + 10


def test_another_setting_is_refused_by_name(tmp_path):
    killed(RandomSampler, tmp_path, 5, evaluator=small)
    with pytest.raises(CheckpointError, match=r"`strategy.rerank` is 3 here, but 2 there"):
        Searched(RandomSampler, tmp_path, evaluator=small, rerank=3).run()
    with pytest.raises(CheckpointError, match=r"`sampler` is GdasSampler here, but RandomSampler there"):
        Searched(GdasSampler, tmp_path, evaluator=small).run()
    with pytest.raises(CheckpointError, match=r"`max_epochs` is 5 here, but 2 there"):
        Searched(RandomSampler, tmp_path, evaluator=partial(small, epochs=5)).run()


@pytest.mark.whole
def test_a_damaged_checkpoint_of_a_search_is_told_and_the_one_before_is_taken(tmp_path, capsys):
    expected, _ = whole(RandomSampler, tmp_path / "whole", evaluator=small)
    folder = tmp_path / "killed"
    killed(RandomSampler, folder, 8, evaluator=small)
    newest = max((folder / "checkpoints").glob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    last = Searched(RandomSampler, folder, evaluator=small).run()
    assert "is damaged: its checksum" in capsys.readouterr().out
    assert same(last.state, expected)


@pytest.mark.whole
def test_nni_is_told_each_thing_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(nni, "report_intermediate_result", lambda value: told.append(value["default"]))
    monkeypatch.setattr(nni, "report_final_result", lambda value: told.append(value))

    class Telling(Searched):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, evaluator=small, checkpoint_minutes=10.0, **options)
            callback = ReportMetric("val_loss")
            self.given.trainer.callbacks.append(callback)
            self.strategy.closing.reports = callback.reports

    Telling(RandomSampler, tmp_path / "whole").run()
    expected, told[:] = list(told), []
    with pytest.raises(Killed):
        Telling(RandomSampler, tmp_path / "killed", 7).run()
    with pytest.raises(Killed):
        Telling(RandomSampler, tmp_path / "killed", 24).run()
    assert (tmp_path / "killed" / "checkpoints" / TOLD).is_file()
    Telling(RandomSampler, tmp_path / "killed").run()
    assert told == expected


@pytest.mark.whole
def test_the_history_of_a_run_that_went_on_has_each_epoch_once(tmp_path):
    killed(RandomSampler, tmp_path, 7, evaluator=small)
    killed(RandomSampler, tmp_path, 24, evaluator=small)
    Searched(RandomSampler, tmp_path, evaluator=small).run()
    epochs = [(one["phase"], one["epoch"]) for one in Run(tmp_path).history.of("epoch")]
    assert epochs == [("search", 0), ("search", 1), ("final training", 0), ("final training", 1)]


def test_checkpoints_hold_nothing_that_runs(tmp_path):
    killed(RandomSampler, tmp_path, 8, evaluator=small)
    for one in (tmp_path / "checkpoints").glob("*.checkpoint"):
        body = one.read_bytes().partition(b"\n")[2]
        length = int.from_bytes(body[:8], "little")
        json.loads(body[8 : 8 + length])  # a header of safetensors, and numbers
        safetensors.torch.load(body)
