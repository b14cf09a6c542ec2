"""A plain loop that was killed ends as one that was not, to the last bit."""

from __future__ import annotations

import os
import random
import signal

import pytest
import torch
from interrupted import SAMPLERS, Killed, Loop, WaveSpace, same, waves
from often import each_once
from torch import nn

from nni_dynconv import Checkpoint, DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.errors import CheckpointError

STEPS = 18


@each_once(sampler=SAMPLERS, minutes=[0.0, 10.0])
def test_a_loop_that_was_killed_at_random_places_ends_as_one_that_was_not(sampler, minutes, tmp_path):
    undisturbed = Loop(sampler, tmp_path / "undisturbed").run().state
    draws, folder = random.Random(f"{sampler.__name__} {minutes}"), tmp_path / "killed"
    for _ in range(2):
        with pytest.raises(Killed):
            Loop(sampler, folder, minutes, kill_at=draws.randint(1, 7)).run()
    last = Loop(sampler, folder, minutes).run()
    assert same(last.state, undisturbed)
    assert last.checkpoint.notes["steps"] == STEPS
    assert minutes or last.steps <= STEPS - 2 * 1 + 2, "a batch is done twice at most"


def test_gradients_that_are_being_gathered_are_kept(tmp_path):
    class Gathering(Loop):
        def step(self, batch, held_out):
            self.mutator.reset()
            self.loss(batch).backward()
            if self.checkpoint.batch % 3 == 2:
                self.optimizer.step()
                self.optimizer.zero_grad()

    undisturbed = Gathering(RandomSampler, tmp_path / "undisturbed").run().state
    with pytest.raises(Killed):
        Gathering(RandomSampler, tmp_path / "killed", 0.0, kill_at=9).run()
    assert same(Gathering(RandomSampler, tmp_path / "killed", 0.0).run().state, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_loop_after_its_batch_and_nothing_is_done_twice(number, tmp_path):
    class Asked(Loop):
        def step(self, batch, held_out):
            super().step(batch, held_out)
            if self.steps == 8:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    loop = Asked(RandomSampler, tmp_path / "asked")
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
        loop.run()
    assert number == signal.SIGINT or ended.value.code == 128 + number
    assert "ends with a checkpoint after this batch" in loop.said[0] and "Start the same again" in loop.said[1]
    assert signal.getsignal(number) is before
    again = Loop(RandomSampler, tmp_path / "asked").run()
    assert loop.steps + again.steps == STEPS
    assert "Goes on after epoch 1, batch 3" in again.said[0]
    assert same(again.state, Loop(RandomSampler, tmp_path / "undisturbed").run().state)


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(tmp_path):
    undisturbed = Loop(RandomSampler, tmp_path / "undisturbed").run().state
    with pytest.raises(Killed):
        Loop(RandomSampler, tmp_path / "killed", 0.0, kill_at=9).run()
    files = sorted((tmp_path / "killed").iterdir())
    assert len(files) == 2, "two deep"
    raw = bytearray(files[1].read_bytes())
    raw[len(raw) // 2] ^= 4
    files[1].write_bytes(raw)
    loop = Loop(RandomSampler, tmp_path / "killed", 0.0).run()
    assert "is damaged: its checksum" in loop.said[0] and f"taken, `{files[0].name}`" in loop.said[0]
    assert same(loop.state, undisturbed)


def test_where_both_are_damaged_nothing_is_believed(tmp_path):
    with pytest.raises(Killed):
        Loop(RandomSampler, tmp_path, 0.0, kill_at=9).run()
    for one in tmp_path.iterdir():
        one.write_bytes(one.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"No checkpoint can be read(.|\n)*begin anew"):
        Loop(RandomSampler, tmp_path).run()


def of(folder, **options):
    mutator = DynamicWeightMutator(WaveSpace(), sampler=RandomSampler(seed=0), context=VectorContext(3, dim=4))
    return Checkpoint(folder, mutator=mutator, say=lambda words: None, **options)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda folder: of(folder, settings={"lr": 2}), r"`settings.lr` is 2 here, but 1 there"),
        (lambda folder: Checkpoint(folder, mutator=nn.Linear(1, 1)), r"`settings.lr` is missing here, but 1 there"),
        (
            lambda folder: Checkpoint(folder, settings={"lr": 1}, mutator=nn.Linear(1, 1)),
            r"`parts.mutator.class` is Linear here, but DynamicWeightMutator there",
        ),
    ],
    ids=["setting", "no setting", "part"],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(other, words, tmp_path):
    of(tmp_path, settings={"lr": 1}).save()
    with pytest.raises(CheckpointError, match=words):
        other(tmp_path).load()


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path, monkeypatch):
    of(tmp_path).save()
    monkeypatch.setattr(torch, "__version__", "9.0")
    with pytest.raises(CheckpointError, match=r"`versions.torch` is 9.0 here"):
        of(tmp_path).load()


def test_what_cannot_be_kept_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"`rate` of a Checkpoint is a float, which has no `state_dict"):
        of(tmp_path, rate=0.1)
    checkpoint = of(tmp_path)
    checkpoint.notes["model"] = object()
    with pytest.raises(CheckpointError, match=r"`state.state.notes.model` is a builtins.object"):
        checkpoint.save()
    checkpoint.notes.clear()
    with pytest.raises(CheckpointError, match=r"list_iterator, which can be gone through once only"):
        next(checkpoint.batches(iter([1])))


def test_data_that_became_fewer_are_refused(tmp_path):
    with pytest.raises(Killed):
        Loop(RandomSampler, tmp_path, 0.0, kill_at=5).run()
    loop = Loop(RandomSampler, tmp_path, 0.0)
    loop.checkpoint.load()
    with pytest.raises(CheckpointError, match=r"4 batches were trained on, but the loader has 2 now"):
        list(loop.checkpoint.batches(waves(1, count=8)))


def test_workers_of_a_loader_draw_what_they_would_have_drawn(tmp_path):
    """Batches of workers are drawn by what they were started with."""

    def rows(checkpoint, stop=None):
        torch.manual_seed(0)
        found = []
        loader = torch.utils.data.DataLoader(waves().dataset, batch_size=4, shuffle=True, num_workers=1)
        checkpoint.load()
        for _ in checkpoint.epochs(2):
            for (x, _), _y in checkpoint.batches(loader):
                found.append(x.sum().item())
                if len(found) == stop:
                    raise Killed
        return found

    whole = rows(of(tmp_path / "whole"))
    with pytest.raises(Killed):
        rows(of(tmp_path / "killed", minutes=0.0), 8)
    assert rows(of(tmp_path / "killed")) == whole[7:]
