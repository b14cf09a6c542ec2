"""How much of what a known context is worth each way to use it reaches, also under contexts never seen.

Blind networks see no context; the oracle is one blind network for each context, trained on that alone, by as many
steps each. What a rung reaches is the share of the gap between these two that it closes, under three budgets: equal
multiply-adds of a sample (what makes its weights among them), equal parameters, equal seconds of training. Each rung is
as wide as a budget allows; equal seconds are spent at one width. Learning rates are chosen on a seed that is not
reported, on held-out data::

    python -m benchmarks.quality.worth.ladder                  # into ladder_TASK.json; what is finished is kept
    python -m benchmarks.quality.worth.ladder --tasks warped
    python -m benchmarks.quality.worth.ladder --quick          # few steps and seeds: whether it runs
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.quality.ledger import Ledger
from benchmarks.quality.worth.rungs import RUNGS, make, multiply_adds, parameters, widest
from benchmarks.quality.worth.running import ledger_at, parser
from benchmarks.quality.worth.tasks import TASKS, Context, Task
from benchmarks.quality.worth.training import measure, seconds_of_step, train

COSTS = {"multiply_adds": multiply_adds, "parameters": parameters}
BUDGETS = (*COSTS, "seconds")
TUNING = 100
"""The seed by which learning rates are chosen."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Parameters
    ----------
    width
        Of the FiLM network whose multiply-adds, and of the one with chunked weights whose parameters are the budget;
        of all where the budget is time.
    seeds
        That are reported.
    rates
        Learning rates that are tried.
    share
        Of each task's steps.
    patience
        Blind steps, in steps, whose time is the budget of seconds.
    """

    width: int = 16
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (0.003, 0.01)
    share: float = 1.0
    patience: float = 2.0


QUICK = Settings(width=6, seeds=(0, 1), rates=(0.01,), share=0.02)


class Run(NamedTuple):
    """One training: what decides its result, beside the settings."""

    rung: str
    budget: str
    rate: float
    seed: int

    @property
    def key(self) -> str:
        """Its name in the file."""
        return "/".join(map(str, self))


class Oracle(nn.Module):
    """One network for each context, all of which are known."""

    def __init__(self, networks: dict[Context, nn.Module]):
        super().__init__()
        self.contexts = torch.tensor(list(networks))
        self.networks = nn.ModuleList(networks.values())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        place = int((self.contexts - context[0]).square().sum(1).argmin())
        return self.networks[place](x, context)


class Ladder:
    """The ladder of one task."""

    def __init__(self, task: Task, ledger: Ledger):
        self.task, self.ledger, self.settings = task, ledger, ledger.settings

    def work(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run what is not known yet."""
        for budget in BUDGETS:
            for rung in ("blind", "oracle", *(one for one in RUNGS if one != "blind")):
                for seed in self.settings.seeds:
                    run = Run(rung, budget, self.rate(rung), seed)
                    yield run.key, self.result(run)

    def rate(self, rung: str) -> float:
        """Return a rung's learning rate; the oracle's networks are blind ones."""
        rung = "blind" if rung == "oracle" else rung
        runs = [Run(rung, "multiply_adds", rate, TUNING) for rate in self.settings.rates]
        best = max(runs, key=lambda run: self.result(run)["validation"]) if len(runs) > 1 else runs[0]
        return best.rate

    def result(self, run: Run) -> dict[str, Any]:
        """Return what a training reached."""
        known = self.ledger.known("runs", run.key)
        return known or self.ledger.note("runs", run.key, self.trained(run))

    def trained(self, run: Run) -> dict[str, Any]:
        """Train and measure."""
        began, task, rung = time.process_time(), self.task, "blind" if run.rung == "oracle" else run.rung
        width, steps = self.width(rung, run.budget), self.steps(rung, run.budget)
        if run.rung == "oracle":
            network: nn.Module = Oracle({one: self._one(run, width, steps, [one]) for one in task.training})
        else:
            network = self._one(run, width, steps, task.training)
        seconds = time.process_time() - began
        sets = {"seen": task.training, "between": task.between, "beyond": task.beyond}
        found = {name: measure(network, task, contexts) for name, contexts in sets.items() if self._meets(run, name)}
        found["validation"] = measure(network, task, task.training, "validation")
        found["shuffled"] = measure(network, task, task.training, shuffled=True)
        sizes = {"width": width, "steps": steps, "seconds": round(seconds, 1), **self.sizes(rung, width)}
        return {**{name: round(one, 4) for name, one in found.items()}, **sizes}

    def _meets(self, run: Run, name: str) -> bool:
        return run.rung != "oracle" or name == "seen"

    def _one(self, run: Run, width: int, steps: int, contexts: Any) -> nn.Module:
        network = make("blind" if run.rung == "oracle" else run.rung, self.task, width, run.seed)
        train(network, self.task, contexts, steps, run.seed, run.rate)
        return network

    def sizes(self, rung: str, width: int) -> dict[str, int]:
        """Return what a network costs."""
        return {name: round(cost(rung, self.task, width)) for name, cost in COSTS.items()}

    def width(self, rung: str, budget: str) -> int:
        """Return how wide a rung is under a budget."""
        if budget == "seconds":
            return int(self.settings.width)
        reference = {"multiply_adds": "film", "parameters": "full"}[budget]
        return widest(COSTS[budget], rung, self.task, COSTS[budget](reference, self.task, self.settings.width))

    def steps(self, rung: str, budget: str) -> int:
        """Return how many steps a rung gets."""
        plain = max(round(self.settings.share * self.task.steps), 2)
        if budget != "seconds":
            return plain
        seconds = self.ledger.known("steps", "seconds") or self.ledger.note("steps", "seconds", self._seconds())
        return max(round(self.settings.patience * plain * seconds["blind"] / seconds[rung]), 2)

    def _seconds(self) -> dict[str, float]:
        return seconds_of_step({rung: make(rung, self.task, self.settings.width, 0) for rung in RUNGS}, self.task)


def path_of(task: str) -> Path:
    """Return where a task's results are kept."""
    return Path(__file__).parent / f"ladder_{task}.json"


def main() -> None:
    """Run what is not known yet, task by task."""
    words = parser(__doc__)
    words.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    options = words.parse_args()
    for name in options.tasks:
        ledger = ledger_at(path_of(name), Settings(), QUICK if options.quick else None)
        for key, row in Ladder(TASKS[name], ledger).work():
            scores = " ".join(
                f"{one} {row[one]:.2f}" for one in ("seen", "between", "beyond", "shuffled") if one in row
            )
            print(f"{name} {key:40} {scores}  {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
