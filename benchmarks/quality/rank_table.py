"""Train each of the 81 architectures from scratch and keep test accuracies: the truth that ``rank.py`` compares with.

One seed takes five to ten minutes on one core. What the table holds already is kept, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.fashion import ARCHITECTURES, EPOCH, FOLDER, Sample, Split, load, measure, network, train

TABLE = Path(__file__).with_name("rank_table.json")
EPOCHS = 6


def key(sample: Sample) -> str:
    """Return the row's name in the table.

    >>> key({"op1": "conv3", "op2": "pool", "op3": "sep3", "op4": "pool"})
    'conv3 pool sep3 pool'
    """
    return " ".join(sample.values())


def accuracy(sample: Sample, seed: int, data: dict[str, Split]) -> float:
    """Train one architecture and return its test accuracy in percent."""
    model = network(sample, seed)
    train(model, data["train"], EPOCHS * EPOCH, seed)
    return round(measure(model.eval(), data["test"])[0], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    table = json.loads(options.output.read_text()) if options.output.exists() else {}
    for seed in options.seeds:
        for sample in ARCHITECTURES:
            row: dict[str, Any] = table.setdefault(key(sample), {})
            if str(seed) not in row:
                row[str(seed)] = accuracy(sample, seed, data)
                options.output.write_text(dump(table))
        print(f"seed {seed}: {len(table)} architectures", flush=True)


def dump(table: dict[str, Any]) -> str:
    """Write one architecture a line."""
    rows = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    main()
