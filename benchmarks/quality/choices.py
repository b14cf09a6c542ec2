"""What one choice or another is worth on two tasks of ``nni-dynconv new``, each network trained from scratch alike.

One architecture of each task (image, sequence), trained by Adam as long as that task's YAML says, with one setting that
is not as in the YAML. Static networks that are told the context as more channels stand beside them, as wide, and three
times as wide. One seed: small differences are none. Goes on where it was stopped, and writes ``choices.json`` and the
table in ``docs/your_own_search.md``; a quarter of an hour on one core::

    python -m benchmarks.quality.choices
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_dynconv.commands.starting.new import TEMPLATES
from nni_dynconv.experiments.trial import build
from nni_dynconv.settings import check_config

TABLE = Path(__file__).with_name("choices.json")
PAGE = Path(__file__).parents[2] / "docs" / "your_own_search.md"
BLANK = "\n\n"
MARK = "<!-- table: choices -->\n"
HEAD = ("what differs", "right digits", "right symbols", "parameters of the network", "thousand multiply-adds")
AS_WRITTEN = "nothing"
CHOICES: dict[str, dict[str, Any]] = {
    AS_WRITTEN: {},
    "2 epochs instead of 10": {"epochs": 2},
    "5 epochs": {"epochs": 5},
    "20 epochs": {"epochs": 20},
    "`controller: low_rank`": {"controller": "low_rank"},
    "`controller: coordinate`": {"controller": "coordinate"},
    "`controller: experts`": {"controller": "experts"},
    "`controller: flat`": {"controller": "flat"},
    "`delta: scale`": {"delta": "scale"},
    "`delta: low_rank`": {"delta": "low_rank"},
    "`base: none`": {"base": "none"},
    "`context: own_input`, which is not told": {"context": {"name": "own_input", "dim": 32}},
    "`context: null`": {"context": None},
    "static twin": {"delta": "none", "context": None},
    "static twin, 20 epochs": {"delta": "none", "context": None, "epochs": 20},
    "static, told the context as channels": {"width": 1},
    "the same, three times as wide": {"width": 3},
    "the same, three times as wide, 20 epochs": {"width": 3, "epochs": 20},
}


class Task(NamedTuple):
    """A task of ``nni-dynconv new``.

    Parameters
    ----------
    sample
        The architecture that is trained.
    loss, right
        Of outputs and targets: what is learned, and the share that is right.
    told
        A static network of that architecture, of a factor on its width, whose input is channels and context.
    channels
        The context as channels, for every place of an input alike.
    """

    sample: dict[str, str]
    loss: Callable[[Tensor, Tensor], Tensor]
    right: Callable[[Tensor, Tensor], Tensor]
    told: Callable[[int], nn.Module]
    channels: Callable[[Tensor], Tensor]


def _image(width: int) -> nn.Module:
    first, second = nn.Conv2d(1 + 4, 12 * width, 5, padding=2), nn.Conv2d(12 * width, 12 * width, 3, padding=1)
    head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 12 * width, 10))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), head)


def _sequence(width: int) -> nn.Module:
    first, second = nn.Conv1d(1 + 24, 8 * width, 9, padding=4), nn.Conv1d(8 * width, 8 * width, 5, padding=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv1d(8 * width, 1, 1))


TASKS = {
    "image": Task(
        {"stem": "conv5", "body": "conv3"},
        F.cross_entropy,
        lambda scores, digit: scores.argmax(1) == digit,
        _image,
        lambda turn: turn,
    ),
    "sequence": Task(
        {"first": "conv9", "second": "conv5"},
        F.binary_cross_entropy_with_logits,
        lambda scores, sent: (scores > 0) == (sent > 0.5),
        _sequence,
        lambda pilot: pilot[:, :, 1],  # what came; what was sent is the same for all
    ),
}


class Told(nn.Module):
    """A static network that sees the context beside its input."""

    def __init__(self, network: nn.Module, channels: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        told = self.channels(context)
        return self.network(
            torch.cat([x, told.view(*told.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])], 1)
        )


class Deaf(nn.Module):
    """A network that takes no context, and is given one."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.network(x)


@contextmanager
def project(name: str) -> Iterator[Path]:
    """For a block, import a task's modules."""
    folder = TEMPLATES / name
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for module in ("data", "evaluator", "space"):
            sys.modules.pop(module, None)


def make(task: Task, settings: dict[str, Any], choice: dict[str, Any]) -> nn.Module:
    """Return a network of the task's architecture; its first weights are the seed's."""
    torch.manual_seed(0)
    if "width" in choice:
        return Told(task.told(choice["width"]), task.channels)
    said = {name: value for name, value in choice.items() if name != "epochs"}
    network = build(settings, **said)[0].freeze(task.sample)
    return Deaf(network) if "context" in choice else network


def measure(name: str, choice: dict[str, Any]) -> dict[str, Any]:
    """Train a network on a task; return what it reaches on its test batches, and what it has and takes."""
    task = TASKS[name]
    with project(name) as folder:
        settings = check_config(folder / "experiment.yml").to_dict()
        train, _, test = importlib.import_module("data").loaders()
        network, start = make(task, settings, choice), time.process_time()
        optimizer = torch.optim.Adam(network.parameters(), lr=settings["evaluator_args"]["learning_rate"])
        for _ in range(choice.get("epochs", settings["strategy"]["final_epochs"])):
            for (x, context), y in train:
                optimizer.zero_grad()
                task.loss(network(x, context), y).backward()
                optimizer.step()
        network.eval()
        (x, context), _ = next(iter(test))
        with torch.no_grad():
            right = torch.cat([task.right(network(x, c), y).float().flatten() for (x, c), y in test])
            with FlopCounterMode(display=False) as counter:
                network(x[:1], context[:1])
    return {
        "right": round(100 * right.mean().item(), 1),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply-adds": counter.get_total_flops() // 2,
        "seconds": round(time.process_time() - start, 1),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the lines of what was measured."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- " * len(HEAD) + "|"]
    for name, row in rows.items():
        image, sequence = row["image"], row["sequence"]
        sizes = f"{image['parameters']:,}; {sequence['parameters']:,}"
        costs = f"{image['multiply-adds'] / 1000:,.0f}; {sequence['multiply-adds'] / 1000:,.0f}"
        lines.append(f"| {name} | {image['right']} % | {sequence['right']} % | {sizes} | {costs} |")
    return "\n".join(lines) + "\n"


def page(text: str, rows: dict[str, dict[str, Any]]) -> str:
    """Return a page with the table behind its mark."""
    before, after = text.split(MARK)
    return f"{before}{MARK}\n{table(rows)}\n{after.split(BLANK, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    for name, choice in CHOICES.items():
        for task in TASKS:
            row = rows.setdefault(name, {})
            if task not in row:
                row[task] = measure(task, choice)
                print(f"{task}, {name}: {row[task]}", flush=True)
        options.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.output == TABLE:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
