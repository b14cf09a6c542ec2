"""Where does it pay to make weights? A search over how each layer's weights come about, beside all 64 answers.

Three convolutions, each static, scaled, of low rank, or made in full, on a learned base. All 64 networks are trained,
so that their front of score over multiply-adds is known; then a supernet is trained that samples fairly, scores them
with its weights on held-out data, and takes the best that costs no more than a budget. Beside it: all static, all full,
and the best uniform answer within the budget::

    python -m benchmarks.quality.worth.where           # into where.json; what is finished is kept
    python -m benchmarks.quality.worth.where --quick   # few networks and steps: whether it runs
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from benchmarks.quality.ledger import Ledger
from benchmarks.quality.worth.rungs import CODE, Backbone, counted
from benchmarks.quality.worth.running import ledger_at, parser
from benchmarks.quality.worth.tasks import TASKS, Task
from benchmarks.quality.worth.training import Drawing, measure, train
from nni_dynconv import ChunkedController, DynamicWeightMutator, FairSampler, VectorContext
from nni_dynconv.ops import DynamicConv1d, DynamicConv2d

DELTAS = ("none", "scale", "low_rank", "full")
LAYERS, RATE = 3, 0.01
SEARCH = 1000
"""Added to the seeds of searches."""
ANSWERS = tuple(product(DELTAS, repeat=LAYERS))


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Parameters
    ----------
    width
        Of the networks.
    steps
        Of each training.
    seeds
        Trainings of each network.
    networks
        How many of the 64.
    search_steps, search_seeds
        Of supernets.
    """

    width: int = 12
    steps: int = 600
    seeds: tuple[int, ...] = (0,)
    networks: int = len(ANSWERS)
    search_steps: int = 1500
    search_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


QUICK = Settings(steps=6, networks=2, search_steps=12, search_seeds=(0,))


class Space(ModelSpace):
    """The backbone, whose convolutions choose how their weights come about."""

    def __init__(self, task: Task, width: int):
        super().__init__()
        labels, made = iter(range(LAYERS)), {1: DynamicConv1d, 2: DynamicConv2d}[task.axes]

        def conv(*sizes: int, **options: Any) -> nn.Module:
            return made(*sizes, delta=nni.choice(f"layer{next(labels)}", list(DELTAS)), rank=2, **options)

        self.body = Backbone(task, width, conv=conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def supernet(task: Task, width: int, seed: int) -> DynamicWeightMutator:
    """Return all of them in one."""
    torch.manual_seed(seed)
    return DynamicWeightMutator(
        Space(task, width), sampler=FairSampler(seed), controller=ChunkedController(hidden=32),
        context=VectorContext(task.dim, CODE), base="learned",
    )  # fmt: skip


def sample_of(answer: tuple[str, ...]) -> dict[str, str]:
    """Return an answer as NNI has it."""
    return {f"layer{place}": delta for place, delta in enumerate(answer)}


@functools.cache
def multiply_adds(task: Task, width: int, answer: tuple[str, ...]) -> float:
    """Count the multiply-adds of a sample in a batch, each with a context of its own."""
    network = supernet(task, width, 0).freeze(sample_of(answer)).eval()
    return counted(network, task)


def trained(task: Task, settings: Settings, answer: tuple[str, ...], seed: int) -> dict[str, float]:
    """Train one of them."""
    began = time.process_time()
    network = supernet(task, settings.width, seed).freeze(sample_of(answer))
    train(network, task, task.training, settings.steps, seed, RATE)
    seconds = time.process_time() - began
    return {
        "score": round(measure(network, task, task.training), 4), "seconds": round(seconds, 1),
        "multiply_adds": round(multiply_adds(task, settings.width, answer)),
    }  # fmt: skip


def searched(task: Task, settings: Settings, seed: int) -> dict[str, float]:
    """Train a supernet, and score all answers with its weights on held-out data."""
    mutator = supernet(task, settings.width, SEARCH + seed)
    train(Drawing(mutator), task, task.training, settings.search_steps, SEARCH + seed, RATE)
    scores = {}
    for answer in ANSWERS[: settings.networks]:

        def run(x: Tensor, context: Tensor, sample: Mapping[str, str] = sample_of(answer)) -> Tensor:
            with mutator.using(sample):
                return mutator(x, context=context)

        scores["-".join(answer)] = round(measure(run, task, task.training, "validation"), 4)
    return scores


def work(task: Task, ledger: Ledger) -> None:
    """Run what is not known yet."""
    settings = ledger.settings
    for seed in settings.seeds:
        for answer in ANSWERS[: settings.networks]:
            name = f"{task.name}/{'-'.join(answer)}/{seed}"
            if ledger.known("truth", name) is None:
                row = ledger.note("truth", name, trained(task, settings, answer, seed))
                print(f"{name:40} {row['score']:.2f}  {row['seconds']:.1f} s", flush=True)
    for seed in settings.search_seeds:
        if ledger.known("searches", f"{task.name}/{seed}") is None:
            row = ledger.note("searches", f"{task.name}/{seed}", searched(task, settings, seed))
            print(f"{task.name}: a search, seed {seed}, prefers {max(row, key=row.__getitem__)}", flush=True)


PATH = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run what is not known yet."""
    words = parser(__doc__)
    words.add_argument("--tasks", nargs="+", choices=TASKS, default=["noisy", "warped"])
    options = words.parse_args()
    ledger = ledger_at(PATH, Settings(), QUICK if options.quick else None)
    for name in options.tasks:
        work(TASKS[name], ledger)


if __name__ == "__main__":
    main()
