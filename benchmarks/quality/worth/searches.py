"""Which search finds the best network in the same seconds? 81 Fashion networks, whose accuracies are known.

Our samplers search with weights that a controller makes, by the defaults of ``mutator.strategy``, the finals among
them; NNI's one-shot strategies with weights of each candidate's own, as they export; evolution and random search train
each network that they try for one epoch. All of them have the same seconds of computing, with all that the search does
in its end; what a step takes is measured first. What was found counts as what it reaches when it is trained from
scratch: the mean of three trainings in ``rank_table.json``::

    python -m benchmarks.quality.worth.searches           # into searches.json; what is finished is kept
    python -m benchmarks.quality.worth.searches --quick   # few seconds and seeds: whether it runs
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import numpy as np
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, RandomOneShot, RegularizedEvolution
from torch.utils.data import TensorDataset

from benchmarks.quality.fashion import ARCHITECTURES, BATCH, EPOCH, FashionSpace, Sample, load, measure, train
from benchmarks.quality.ledger import Ledger
from benchmarks.quality.rank import LIFTED
from benchmarks.quality.rank_table import key
from benchmarks.quality.worth.running import ledger_at, parser
from nni_dynconv import (
    ArchitectureEncoder,
    ChunkedController,
    DartsSampler,
    EnasSampler,
    FairSampler,
    GdasSampler,
    RandomSampler,
    lift,
)

EPOCHS, RATE, HELD_OUT = 5, 1e-3, 2000
PROBES = (10, 40)
"""Steps of an epoch in two searches that tell what a step takes, and what the rest."""
TABLE = Path(__file__).parents[1] / "rank_table.json"


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Parameters
    ----------
    seconds
        Of computing that a search has.
    seeds
        That are reported.
    """

    seconds: float = 40.0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


QUICK = Settings(3.0, (0,))


@functools.cache
def _data() -> Any:
    return load()


def _evaluator(steps: int) -> Classification:
    """Return what trains a supernet for some steps in each of five epochs."""
    data = _data()
    options: dict[str, Any] = {"max_epochs": EPOCHS, "accelerator": "cpu", "logger": False}
    options |= {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Classification(
        num_classes=10, learning_rate=RATE, limit_train_batches=steps, limit_val_batches=10,
        train_dataloaders=DataLoader(TensorDataset(*data["train"]), BATCH, shuffle=True),
        val_dataloaders=DataLoader(TensorDataset(*(one[:HELD_OUT] for one in data["held_out"])), BATCH, shuffle=True),
        **options,
    )  # fmt: skip


def ours(sampler: Any, seed: int, steps: int) -> Sample:
    """Search with made weights, by the defaults of the strategy; what is found is not trained."""
    mutator = lift(FashionSpace(), where=LIFTED, base="learned").mutator(
        sampler=sampler(seed=seed), controller=ChunkedController(chunk=32), architecture=ArchitectureEncoder(16)
    )
    strategy = mutator.strategy(final_epochs=0)
    strategy(RawFormatModelSpace(mutator.space, _evaluator(steps)), SequentialExecutionEngine())
    return mutator.export()


def one_shot(strategy: Any, seed: int, steps: int) -> Sample:
    """Search by a one-shot strategy of NNI's."""
    found = strategy()
    found(RawFormatModelSpace(FashionSpace(), _evaluator(steps)), SequentialExecutionEngine())
    return dict(next(iter(found.list_models())).sample)


def _accuracy_after(sample: Sample, seed: int) -> float:
    """Return what a network reaches on held-out samples after an epoch."""
    torch.manual_seed(seed)
    network = FashionSpace().freeze(dict(sample))
    train(network, _data()["train"], EPOCH, seed)
    network.eval()
    return measure(network, _data()["held_out"])[0]


def evolution(seed: int, trials: int) -> Sample:
    """Search by NNI's regularised evolution; each network is trained for an epoch."""

    def tried(model: ModelSpace) -> None:
        nni.report_final_result(_accuracy_after(model.sample, seed))

    space = RawFormatModelSpace(FashionSpace(), FunctionalEvaluator(tried))
    strategy = RegularizedEvolution(population_size=max(4, trials // 4), sample_size=max(2, trials // 10))
    strategy(space, SequentialExecutionEngine(max_model_count=trials))
    return dict(next(iter(strategy.list_models())).sample)


def drawn(seed: int, trials: int) -> Sample:
    """Train random networks for an epoch each, and take the best."""
    tried = random.Random(seed).sample(ARCHITECTURES, min(trials, len(ARCHITECTURES)))  # noqa: S311
    return max(tried, key=lambda sample: _accuracy_after(sample, seed))


OURS = {"random": RandomSampler, "fair": FairSampler, "enas": EnasSampler, "darts": DartsSampler, "gdas": GdasSampler}
NNIS = {"NNI's DARTS": DARTS, "NNI's GumbelDARTS": GumbelDARTS, "NNI's RandomOneShot": RandomOneShot}
SEARCHES: dict[str, Callable[[int, int], Sample]] = {
    **{f"our {name}": functools.partial(ours, one) for name, one in OURS.items()},
    **{name: functools.partial(one_shot, one) for name, one in NNIS.items()},
    "NNI's RegularizedEvolution": evolution,
    "random search": drawn,
}


def search(name: str, seed: int, steps: int) -> tuple[Sample, float]:
    """Search, and return what was found and the seconds of computing."""
    for one in (random.seed, np.random.seed, torch.manual_seed):
        one(seed)
    began = time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = SEARCHES[name](seed, steps)
    return {label: found[label] for label in sorted(found)}, time.process_time() - began


def steps_in(name: str, seconds: float) -> int:
    """Return how many steps of an epoch, or networks, a search has time for."""
    few, many = PROBES if name not in ("NNI's RegularizedEvolution", "random search") else (5, 10)
    (_, short), (_, long) = search(name, 100, few), search(name, 100, many)
    each = (long - short) / (many - few)
    return max(int((seconds - short) / each) + few, 1)


def work(ledger: Ledger) -> None:
    """Run what is not known yet."""
    truth = {name: fmean(found.values()) for name, found in json.loads(TABLE.read_text()).items()}
    for name in SEARCHES:
        steps = ledger.known("steps", name) or ledger.note("steps", name, steps_in(name, ledger.settings.seconds))
        for seed in ledger.settings.seeds:
            if ledger.known("runs", f"{name}/{seed}") is None:
                found, seconds = search(name, seed, steps)
                row = {"found": key(found), "accuracy": round(truth[key(found)], 3), "seconds": round(seconds, 1)}
                ledger.note("runs", f"{name}/{seed}", row)
                print(f"{name:28} seed {seed}: {row['found']:24} {row['accuracy']:.2f} %  {seconds:.0f} s", flush=True)


PATH = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run what is not known yet."""
    options = parser(__doc__).parse_args()
    logging.disable(logging.WARNING)
    ledger = ledger_at(PATH, Settings(), QUICK if options.quick else None)
    work(ledger)


if __name__ == "__main__":
    main()
