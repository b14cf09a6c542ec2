"""Is the best static architecture the best dynamic one? All 81 Fashion networks, trained both ways, by a known turn.

Static networks see the context as channels beside the image; dynamic ones have weights that a basis controller makes
from it. Each is trained twice, so that Kendall's tau between the two kinds stands beside that of two trainings of one
kind. Then what a search of the dynamic ones finds, by how many steps::

    python -m benchmarks.quality.worth.twins           # into twins.json; what is finished is kept
    python -m benchmarks.quality.worth.twins --quick   # few networks and steps: whether it runs
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.quality.fashion import ARCHITECTURES, FashionSpace, Sample
from benchmarks.quality.ledger import Ledger
from benchmarks.quality.rank_table import key
from benchmarks.quality.worth.rungs import CODE
from benchmarks.quality.worth.running import ledger_at, parser
from benchmarks.quality.worth.tasks import TASKS
from benchmarks.quality.worth.training import Drawing, batch_of, measure, train
from nni_dynconv import DynamicWeightMutator, FairSampler, VectorContext, lift
from nni_dynconv.controllers import BasisController
from nni_dynconv.search.finals import finals
from nni_dynconv.search.ranking import Task, generated_losses

TASK = TASKS["turned"]
RATE, SEARCH_RATE = 0.01, 0.01
LIFTED = (nn.Conv2d,)
FINALISTS, CALIBRATION, SCORED = 5, 5, 30  # architectures, batches, batches
SEARCH = 1000
"""Added to the seeds of searches."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Parameters
    ----------
    steps
        Of each training.
    seeds
        Trainings of each network.
    networks
        How many of the 81.
    searches
        Steps of searches, those of the finals among them.
    search_seeds
        Of each search.
    finals
        Steps of each finalist.
    """

    steps: int = 600
    seeds: tuple[int, ...] = (0, 1)
    networks: int = len(ARCHITECTURES)
    searches: tuple[int, ...] = (400, 800, 1600, 3200)
    search_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    finals: int = 40


QUICK = Settings(steps=6, networks=3, searches=(20,), search_seeds=(0,), finals=2)


class Told(nn.Module):
    """A static network that sees the context as channels."""

    def __init__(self, sample: Sample):
        super().__init__()
        self.network = FashionSpace(inputs=1 + TASK.dim).freeze(dict(sample))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        planes = context[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.network(torch.cat([x, planes], 1))


def supernet(seed: int) -> DynamicWeightMutator:
    """Return the dynamic space with what makes its weights."""
    torch.manual_seed(seed)
    return lift(FashionSpace(), where=LIFTED, base="learned").mutator(
        sampler=FairSampler(seed), controller=BasisController(hidden=32), context=VectorContext(TASK.dim, CODE)
    )


def network(kind: str, sample: Sample, seed: int) -> nn.Module:
    """Return one network with random weights."""
    if kind == "dynamic":
        return supernet(seed).freeze(sample)
    torch.manual_seed(seed)
    return Told(sample)


def trained(kind: str, sample: Sample, seed: int, steps: int) -> dict[str, float]:
    """Train one network and return what it reaches."""
    began = time.process_time()
    net = network(kind, sample, seed)
    train(net, TASK, TASK.training, steps, seed, RATE)
    seconds = time.process_time() - began
    return {"accuracy": round(measure(net, TASK, TASK.training), 3), "seconds": round(seconds, 2)}


def searched(steps: int, settings: Settings, seed: int) -> dict[str, Any]:
    """Search the dynamic networks: train the supernet, score all of them with made weights, train the best a little."""
    began, mutator = time.process_time(), supernet(SEARCH + seed)
    train(Drawing(mutator), TASK, TASK.training, steps - FINALISTS * settings.finals, SEARCH + seed, SEARCH_RATE)
    held_out, training = _batches("validation", SCORED), _batches("train", settings.finals)
    task = Task(_loss, held_out, training[:CALIBRATION])
    some = ARCHITECTURES[: settings.networks]
    scores = generated_losses(mutator, some, task)
    best = [one for _, one in sorted(zip(scores, some, strict=True), key=lambda pair: pair[0])][:FINALISTS]
    after = finals(
        mutator, best, task, training, lambda net: [torch.optim.AdamW(net.parameters(), 1e-3)], settings.finals
    )
    found = best[min(range(len(best)), key=after.after.__getitem__)]
    seconds = time.process_time() - began
    return {"found": key(found), "before": key(best[0]), "seconds": round(seconds, 1)}


def _batches(split: str, count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [batch_of(TASK, split, torch.tensor(TASK.training), number) for number in range(count)]


def _loss(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, context, wanted = batch
    return TASK.loss(model((x, context)), wanted)


def work(ledger: Ledger) -> None:
    """Run what is not known yet."""
    settings = ledger.settings
    for seed in settings.seeds:
        for sample in ARCHITECTURES[: settings.networks]:
            for kind in ("static", "dynamic"):
                name = f"{kind}/{key(sample)}/{seed}"
                if ledger.known("truth", name) is None:
                    row = ledger.note("truth", name, trained(kind, sample, seed, settings.steps))
                    print(f"{name:40} {row['accuracy']:.2f} %  {row['seconds']:.1f} s", flush=True)
    for steps in settings.searches:
        for seed in settings.search_seeds:
            if ledger.known("searches", f"{steps}/{seed}") is None:
                row = ledger.note("searches", f"{steps}/{seed}", searched(steps, settings, seed))
                print(f"a search of {steps} steps, seed {seed}: {row['found']}  {row['seconds']:.0f} s", flush=True)


PATH = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run what is not known yet."""
    options = parser(__doc__).parse_args()
    ledger = ledger_at(PATH, Settings(), QUICK if options.quick else None)
    work(ledger)


if __name__ == "__main__":
    main()
