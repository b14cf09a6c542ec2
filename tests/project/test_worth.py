"""The experiments on what a known context is worth, and the page that is made from what they keep."""

from __future__ import annotations

import pytest
import torch

from benchmarks.quality.ledger import Ledger
from benchmarks.quality.worth import page
from benchmarks.quality.worth.ladder import QUICK, Ladder, Oracle, Run
from benchmarks.quality.worth.rungs import RUNGS, make, multiply_adds, parameters, widest
from benchmarks.quality.worth.tasks import TASKS, Task
from benchmarks.quality.worth.training import interval, measure
from nni_dynconv.errors import ConfigError


def drawn(task: Task, split: str = "train", count: int = 6):
    contexts = torch.tensor(task.training)[torch.arange(count) % len(task.training)]
    try:
        return contexts, *task.draw(split, contexts, torch.Generator().manual_seed(0))
    except ConfigError as error:
        pytest.skip(str(error))


def test_the_page_is_made_of_what_is_kept():
    text = page.PAGE.read_text(encoding="utf-8")
    for name, made in page.SECTIONS.items():
        assert page.replaced(text, name, made()) == text, f"{name}: run `python -m benchmarks.quality.worth.page`"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_data_follow_from_the_generator_and_change_with_the_context(task):
    contexts, x, wanted = drawn(task)
    _, again, same = drawn(task)
    assert torch.equal(x, again) and torch.equal(wanted, same)
    other, _ = task.draw("train", contexts.roll(1, 0), torch.Generator().manual_seed(0))
    assert not torch.equal(x, other)
    assert not {*task.training} & {*task.between, *task.beyond}


def test_a_turn_of_zero_degrees_and_a_warp_of_nothing_leave_the_data_as_they_are():
    for name, same in (("turned", (1.0, 0.0)), ("warped", (0.0, 1.0))):
        task = TASKS[name]
        drawn(task)
        x, _ = task.draw("train", torch.tensor([same]), torch.Generator().manual_seed(0))
        turned_twice = torch.tensor([{"turned": (-1.0, 0.0), "warped": (0.0, -1.0)}[name]])
        back, _ = task.draw("train", turned_twice, torch.Generator().manual_seed(0))
        assert torch.allclose(back.flip(tuple(range(2, x.ndim))), x, atol=1e-4)


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_gives_what_the_task_wants_and_all_but_the_blind_one_use_the_context(rung):
    task = TASKS["warped"]
    contexts, x, wanted = drawn(task)
    network = make(rung, task, 4, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):  # FiLM begins with maps of zeros
        optimizer.zero_grad()
        task.loss(network(x, contexts), wanted).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        one, other = network(x, contexts), network(x, contexts.roll(1, 0))
    assert one.shape == (len(x), task.outputs)
    assert torch.equal(one, other) == (rung == "blind")


def test_the_widest_network_of_a_budget_is_the_widest():
    task = TASKS["warped"]
    drawn(task)
    for cost in (multiply_adds, parameters):
        most = cost("film", task, 5)
        width = widest(cost, "blind", task, most)
        assert cost("blind", task, width) <= most < cost("blind", task, width + 1)


def test_the_oracle_runs_the_network_of_the_context():
    task = TASKS["warped"]
    contexts, x, _ = drawn(task)
    networks = {one: make("blind", task, 2, seed).eval() for seed, one in enumerate(task.training)}
    oracle = Oracle(networks)
    for one, network in networks.items():
        told = torch.tensor(one).expand(len(x), -1)
        assert torch.equal(oracle(x, told), network(x, contexts))


def test_an_interval_is_that_of_students_t():
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and high - mean == pytest.approx(mean - low) == pytest.approx(3.182 * 1.29099 / 2, rel=1e-3)
    assert interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


@pytest.mark.whole
def test_a_ladder_keeps_each_run_and_runs_none_twice(tmp_path):
    task = TASKS["warped"]
    drawn(task)
    ladder = Ladder(task, Ledger(tmp_path / "ladder.json", QUICK))
    row = ladder.result(Run("basis", "multiply_adds", 0.01, 0))
    assert row["multiply_adds"] <= multiply_adds("film", task, QUICK.width)
    again = Ladder(task, Ledger(tmp_path / "ladder.json", QUICK))
    again.trained = None
    assert again.result(Run("basis", "multiply_adds", 0.01, 0)) == row
    assert 0 <= measure(make("blind", task, 2, 0).eval(), task, task.between, shuffled=True) <= 100
