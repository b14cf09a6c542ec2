"""How well four ways foretell which of 81 networks is best, at equal cost: Kendall's tau and regret against a table.

Weight sharing (NNI's RandomOneShot), generated weights, one epoch of SGD for each network, and generated weights with
the best few re-ranked by short training. All see the same training data, draw the same paths, have the same kind of
optimizer and schedule, and are scored by the loss on the same held-out images. The budget is in gradient steps of one
network: one epoch for each of the 81. Generated weights get what re-ranking leaves of it. Beside, the few finalists and
steps that a search has by default. NNI has no recalibration of
BatchNorm, so weight sharing is scored without it and, beside, with ours; generated weights likewise.

Settings were chosen on seed 0: of both learning rates, and that all layers are lifted.

``rank_table.py`` makes the table. What ``rank_scores.json`` holds already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import RandomOneShot
from torch import Tensor, nn

from benchmarks.quality.fashion import (
    ARCHITECTURES,
    BATCH,
    EPOCH,
    FOLDER,
    RATE,
    FashionSpace,
    Sample,
    Split,
    load,
    network,
    optimizer_of,
    train,
)
from benchmarks.quality.rank_report import report, update_results
from nni_dynconv import ArchitectureEncoder, ChunkedController, DynamicWeightMutator, RandomSampler, lift
from nni_dynconv.samplers import choices_of
from nni_dynconv.search.finals import finals
from nni_dynconv.search.ranking import Task, generated_losses, held_out_loss
from nni_dynconv.settings.parts import StrategySettings

HERE = Path(__file__).parent
BUDGET = EPOCH * len(ARCHITECTURES)  # 6,318 steps
SHARED_RATE, MADE_RATE = RATE, RATE / 2
LIFTED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)  # all that has weights
FINALISTS, FINAL_STEPS, FINAL_RATE = 10, 2 * EPOCH, RATE / 2
DEFAULT_FINALISTS, DEFAULT_STEPS = StrategySettings().rerank, StrategySettings().rerank_steps
STEPS = {
    "weight_sharing": BUDGET,
    "generated": BUDGET - FINALISTS * FINAL_STEPS,
    "reranked": BUDGET,
    "reranked_by_default": BUDGET - FINALISTS * FINAL_STEPS + DEFAULT_FINALISTS * DEFAULT_STEPS,
    "one_epoch": len(ARCHITECTURES) * EPOCH,
}
SCORED_ON, CALIBRATION = 2000, 5

Scores = dict[str, list[float]]
Data = dict[str, Split]


def loss_of(model: nn.Module, batch: Split) -> Tensor:
    """Cross-entropy of a batch."""
    return F.cross_entropy(model(batch.x), batch.y)


def task_of(data: Data) -> Task:
    """What every network is scored by."""
    held_out = [Split(*rows) for rows in zip(*(one[:SCORED_ON].split(500) for one in data["held_out"]), strict=True)]
    training = zip(*(one.split(100) for one in data["train"]), strict=True)
    return Task(loss_of, held_out, [Split(*rows) for rows, _ in zip(training, range(CALIBRATION), strict=False)])


def drawn(seed: int) -> Iterator[Sample]:
    """Yield the paths that a supernet is trained on."""
    sampler = RandomSampler(seed)
    sampler.bind(choices_of(FashionSpace()))
    while True:
        yield sampler.sample()


def weight_sharing(data: Data, seed: int) -> Scores:
    """NNI's RandomOneShot: each candidate has weights that all architectures share."""
    torch.manual_seed(seed)
    space, paths, task = FashionSpace(), drawn(seed), task_of(data)
    RandomOneShot().mutate_model(space)
    choices = [one for one in space.modules() if isinstance(one, BaseSuperNetModule)]

    def take(sample: Sample) -> None:
        for choice in choices:
            choice.resample(dict(sample))

    train(space, data["train"], BUDGET, seed, SHARED_RATE, before=lambda step: take(next(paths)))
    scores: Scores = {"weight_sharing": [], "weight_sharing_calibrated": []}
    for sample in ARCHITECTURES:
        take(sample)
        scores["weight_sharing"].append(-held_out_loss(space, task._replace(calibration=())))
        scores["weight_sharing_calibrated"].append(-held_out_loss(space, task))
    return scores


def generated(data: Data, seed: int) -> Scores:
    """Weights that are a learned base plus what a controller makes for the architecture; then the finals."""
    torch.manual_seed(seed)
    mutator = lift(FashionSpace(), where=LIFTED, base="learned").mutator(
        sampler=RandomSampler(seed), controller=ChunkedController(chunk=32), architecture=ArchitectureEncoder(16)
    )
    paths, task = drawn(seed), task_of(data)

    def take(step: int) -> None:
        mutator.sample = next(paths)

    train(mutator.space, data["train"], STEPS["generated"], seed, MADE_RATE, before=take)
    scores = [-loss for loss in generated_losses(mutator, ARCHITECTURES, task)]
    plain = [-loss for loss in generated_losses(mutator, ARCHITECTURES, task._replace(calibration=()))]
    best = sorted(range(len(scores)), key=lambda place: -scores[place])
    ahead = max(scores) + 10  # whoever was trained is above all that were not
    by_default, reranked = list(scores), list(scores)
    few = best[:DEFAULT_FINALISTS]
    for place, loss in zip(few, finals_by_default(mutator, few, data, task), strict=True):
        by_default[place] = ahead - loss
    for place in best[:FINALISTS]:
        finalist = mutator.freeze(ARCHITECTURES[place])
        train(finalist, data["train"], FINAL_STEPS, seed, FINAL_RATE)
        reranked[place] = ahead - held_out_loss(finalist, task)
    return {
        "generated": scores,
        "generated_uncalibrated": plain,
        "reranked": reranked,
        "reranked_by_default": by_default,
    }


def finals_by_default(mutator: DynamicWeightMutator, places: list[int], data: Data, task: Task) -> list[float]:
    """Return the held-out losses after what a search does at its end unless it is told otherwise."""
    batches = [Split(*rows) for rows in zip(*(one.split(BATCH) for one in data["train"]), strict=True)]
    samples = [ARCHITECTURES[place] for place in places]
    found = finals(mutator, samples, task, batches, lambda network: [optimizer_of(network, MADE_RATE)], DEFAULT_STEPS)
    return found.after


def one_epoch(data: Data, seed: int) -> Scores:
    """Each network from scratch, for one epoch."""
    task, scores = task_of(data), []
    for sample in ARCHITECTURES:
        model = network(sample, 1000 + seed)  # seeds that the table does not have
        train(model, data["train"], EPOCH, 1000 + seed)
        scores.append(-held_out_loss(model, task))
    return {"one_epoch": scores}


def parameters(data: Data, seed: int) -> Scores:
    """The number of parameters, which costs nothing."""
    counts = [sum(one.numel() for one in network(sample, 0).parameters()) for sample in ARCHITECTURES]
    return {"parameters": [float(count) for count in counts]}


CONTESTANTS: dict[str, Callable[[Data, int], Scores]] = {
    "weight_sharing": weight_sharing,
    "generated": generated,
    "one_epoch": one_epoch,
    "parameters": parameters,
}


def measure_all(path: Path, seeds: list[int], data: Data) -> dict[str, Any]:
    """Measure what the file lacks; write it after each contestant."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, contestant in CONTESTANTS.items():
        for seed in seeds:
            if str(seed) in kept.get(name, {}):
                continue
            began = time.process_time()
            for row, scores in contestant(data, seed).items():
                kept.setdefault(row, {})[str(seed)] = [round(score, 5) for score in scores]
            kept.setdefault("seconds", {}).setdefault(name, {})[str(seed)] = round(time.process_time() - began, 1)
            path.write_text(json.dumps(kept) + "\n")
            print(f"seed {seed}: {name}, {kept['seconds'][name][str(seed)]} s of CPU", flush=True)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--table", type=Path, default=HERE / "rank_table.json")
    parser.add_argument("--scores", type=Path, default=HERE / "rank_scores.json")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scores = measure_all(options.scores, options.seeds, load(options.data))
    found = report(scores, json.loads(options.table.read_text()), options.seeds)
    update_results(options.output, {**found, "steps": STEPS})


if __name__ == "__main__":
    main()
