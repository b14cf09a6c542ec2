"""Does each sampler that learns find a planted best architecture? Keeps a row a run in ``planted.json``, prints counts.

Spaces, norms behind each choice and seeds are those of ``tests/planted.py``, where they stood before any estimator was
changed by what they show; paces were chosen on other seeds. A run takes 2 to 20 s on one core, all of them about an
hour; what the file holds already is kept, so that a stopped run goes on::

    python -m benchmarks.quality.planted --sampler darts --space residual --norm batch --seeds 0 1
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nni_dynconv import DartsSampler, DynamicWeightMutator, EnasSampler, FairSampler, GdasSampler

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from planted import NORMS, SEEDS, SPACES, batch_of

TABLE = Path(__file__).with_suffix(".json")
DRAWS = 300  # that a sampler learns by which selects when training has ended
Batch = tuple[Tensor, Tensor]


class Pace(NamedTuple):
    """Steps in all, steps before the architecture learns, learning rate of the weights, settings of the sampler."""

    sampler: type
    steps: int
    warm_up: int
    rate: float
    settings: Mapping[str, Any]


# Losses and rewards are worth something once the weights are: samplers that compare them wait for a while. Through a
# mixture a gradient tells candidates apart while the weights still learn, and vanishes where they have: there they go
# slowly.
PACES = {
    "fair": Pace(FairSampler, 300, 300, 0.01, {}),
    "enas": Pace(EnasSampler, 400, 100, 0.01, {"entropy_weight": 0.3, "entropy_weight_end": 0.0}),
    "darts": Pace(DartsSampler, 400, 0, 0.001, {"learning_rate": 0.1}),
    "gdas": Pace(GdasSampler, 400, 100, 0.01, {"learning_rate": 0.03}),
}

# What the second choice is worth hangs on the first: a policy that hurries settles before the first is decided.
SLOWER = {
    ("enas", "residual"): {"steps": 700, "warm_up": 200, "settings": {**PACES["enas"].settings, "learning_rate": 0.005}}
}


def find(sampler: str, space: str, norm: str, seed: int) -> DynamicWeightMutator:
    """Search in a plain loop: weights on one batch, architecture on another."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pace = PACES[sampler]._replace(**SLOWER.get((sampler, space), {}))
    made = pace.sampler(seed=seed, **pace.settings)
    mutator = DynamicWeightMutator(SPACES[space](norm), sampler=made, base="learned")
    roles = mutator.parameters_by_role()
    optimizer = torch.optim.Adam(roles["weights"] + roles["controller"], lr=pace.rate)
    architecture = made.optimizer()
    for step in range(pace.steps):
        made.anneal(max(step - pace.warm_up, 0) / max(pace.steps - pace.warm_up - 1, 1))
        mutator.reset()
        descend(mutator, optimizer, loss_of(mutator, batch_of(mutator.space, generator)))
        if step >= pace.warm_up and made.learns == "gradient":
            learn_architecture(mutator, architecture, generator)
        elif step >= pace.warm_up:
            reward(mutator, batch_of(mutator.space, generator))
    for _ in range(DRAWS if made.learns == "selection" else 0):
        reward(mutator, batch_of(mutator.space, generator))
    return mutator


def learn_architecture(
    mutator: DynamicWeightMutator, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> None:
    held_out = batch_of(mutator.space, generator)
    training = batch_of(mutator.space, generator) if mutator.sampler.unroll else held_out
    loss = mutator.architecture_loss(lambda: loss_of(mutator, held_out), lambda: loss_of(mutator, training))
    descend(mutator, optimizer, loss)


def reward(mutator: DynamicWeightMutator, batch: Batch) -> None:
    with torch.no_grad():
        mutator.sampler.observe(mutator.reset(), -loss_of(mutator, batch).item())


def descend(mutator: DynamicWeightMutator, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    mutator.zero_grad()
    loss.backward()
    optimizer.step()


def loss_of(mutator: DynamicWeightMutator, batch: Batch) -> Tensor:
    x, y = batch
    return F.mse_loss(mutator(x), y)


def is_best(space: str, found: Mapping[str, Any]) -> bool:
    """Whether an architecture is the one that is planted in a space."""
    return dict(found) == SPACES[space].BEST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", nargs="+", choices=PACES, default=list(PACES))
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--norm", nargs="+", choices=NORMS, default=list(NORMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    cells = list(itertools.product(options.sampler, options.space, options.norm))
    found: dict[tuple[str, ...], list[bool]] = {cell: [] for cell in cells}
    for seed, cell in itertools.product(options.seeds, cells):  # all cells of a seed first: a stopped run tells of each
        found[cell].append(run(rows, options.output, *cell, seed))
    for cell, best in found.items():
        print(f"{', '.join(cell)}: {sum(best)} of {len(best)}")


def run(rows: list[dict[str, Any]], output: Path, sampler: str, space: str, norm: str, seed: int) -> bool:
    """Return whether a run finds the best, as the rows know it already or as it is found now, which they are told."""
    place = {"sampler": sampler, "space": space, "norm": norm, "seed": seed}
    row = next((one for one in rows if place.items() <= one.items()), None)
    if row is None:
        found = find(sampler, space, norm, seed).export()
        row = {**place, "found": {str(label): value for label, value in found.items()}, "best": is_best(space, found)}
        rows.append(row)
        output.write_text(dump(rows))
    return row["best"]


def dump(rows: list[dict[str, Any]]) -> str:
    """Write one run a line."""
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"


if __name__ == "__main__":
    main()
