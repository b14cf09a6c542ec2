"""Two processes that train as one in a plain loop (gloo) are killed, and go on as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from interrupted import Loop, same, waves
from torch.nn.parallel import DistributedDataParallel

from nni_dynconv import EnasSampler, FairSampler
from nni_dynconv.errors import CheckpointError
from nni_dynconv.samplers.distributed import agree, mean

PROCESSES = 2


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


class Together(Loop):
    """The loop of one process among several: its own data and noise, a joint gradient, the same architecture."""

    def __init__(self, rank, *arguments, sent=None, **options):
        super().__init__(*arguments, **options)
        self.rank, self.sent = rank, sent
        random.seed(rank)
        torch.manual_seed(rank)
        self.network = DistributedDataParallel(self.mutator, find_unused_parameters=True)
        self.own = waves(10 + rank)

    def loss(self, batch):
        (x, c), y = batch
        return F.cross_entropy(self.network(x, context=c), y)

    def step(self, batch, held_out):
        if self.sent is not None and self.rank == 1 and self.steps == 4:
            os.kill(os.getpid(), self.sent)
        agree(self.mutator.sampler)
        self.mutator.reset()
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        self.optimizer.step()
        if self.learns == "rewards":
            with torch.no_grad():
                (x, c), y = held_out
                loss = F.cross_entropy(self.mutator(x, context=c), y)
            self.mutator.sampler.observe(self.mutator.sample, -mean(float(loss)))


def member(rank, processes, folder, meeting, sampler, sent, minutes):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    loop = Together(rank, sampler, folder, minutes, sent=sent)
    try:
        loop.run(epochs=2)
        kept = {"state": loop.state, "said": loop.said, "steps": loop.steps, "notes": dict(loop.checkpoint.notes)}
    except CheckpointError as error:
        kept = {"error": str(error)}
    except SystemExit as ended:
        kept = {"said": loop.said, "steps": loop.steps, "status": ended.code}
    torch.save(kept, f"{meeting}.{rank}")
    dist.barrier()
    os._exit(0)  # torch's teardown of a group waits now and then for a process that is gone


def in_processes(folder, sampler, sent=None, minutes=0.0, processes=PROCESSES):
    """Run the loop in processes of one group; return how each ended, and what it left."""
    place = folder.parent / f"meeting-{random.random()}"
    fork = multiprocessing.get_context("fork")
    arguments = (processes, folder, place, sampler, sent, minutes)
    members = [fork.Process(target=member, args=(rank, *arguments), daemon=True) for rank in range(processes)]
    for one in members:
        one.start()
    for one in members:
        one.join(timeout=120)
    for one in members:
        one.kill()
    left = [place.with_name(f"{place.name}.{rank}") for rank in range(processes)]
    found = [torch.load(one, weights_only=False) if one.is_file() else None for one in left]
    return [one.exitcode for one in members], found


@pytest.mark.whole
@pytest.mark.parametrize("sampler", [FairSampler, EnasSampler])
def test_processes_of_which_one_was_killed_go_on_to_the_same_bits(sampler, tmp_path):
    _, expected = in_processes(tmp_path / "undisturbed", sampler)
    codes, found = in_processes(tmp_path / "killed", sampler, signal.SIGKILL)
    assert codes[1] == -signal.SIGKILL and codes[0] != 0 and found == [None, None]
    assert len(list((tmp_path / "killed").glob("*.checkpoint"))) == 2, "the first one writes for both"
    _, found = in_processes(tmp_path / "killed", sampler)
    for one, other in zip(found, expected, strict=True):
        assert same(one["state"], other["state"]) and one["notes"] == other["notes"] == {"steps": 12}
        assert one["steps"] == 12 - 4, "nothing before the kill was done twice"
    assert not same(found[0]["state"][-1], found[1]["state"][-1]), "each has generators of its own"
    assert "Goes on after epoch 0, batch 4" in found[0]["said"][0] and found[1]["said"] == [], "the first one speaks"


@pytest.mark.whole
def test_a_signal_to_one_process_ends_all_of_them_after_the_same_batch(tmp_path):
    _, expected = in_processes(tmp_path / "undisturbed", FairSampler, minutes=10.0)
    _, asked = in_processes(tmp_path / "asked", FairSampler, signal.SIGTERM, minutes=10.0)
    assert [(one["steps"], one["status"]) for one in asked] == [(5, 128 + signal.SIGTERM)] * 2
    _, found = in_processes(tmp_path / "asked", FairSampler, minutes=10.0)
    assert all(same(one["state"], other["state"]) for one, other in zip(found, expected, strict=True))
    assert [one["steps"] for one in found] == [7, 7]


def test_another_number_of_processes_and_a_damaged_checkpoint_are_refused_in_all(tmp_path):
    folder = tmp_path / "run"
    in_processes(folder, FairSampler, signal.SIGTERM)
    _, (alone,) = in_processes(folder, FairSampler, processes=1)
    assert "was written by 2 processes, but here are 1" in alone["error"]
    for one in folder.glob("*.checkpoint"):
        one.write_bytes(one.read_bytes()[:-1] + b"?")
    _, found = in_processes(folder, FairSampler)
    assert found[0] == found[1] and "No checkpoint can be read" in found[0]["error"]
