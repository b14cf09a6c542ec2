"""Whether a network whose weights are made from the number of its task forgets those before it.

Split Fashion-MNIST: five tasks of two classes each, a network of two hidden layers, told which task a sample is of. The
controller is held to what it made for earlier tasks, by the squared change of those weights (von Oswald et al.,
Continual learning with hypernetworks, ICLR 2020). Beside it: a static network that is trained on, with a head for each
task; one network for each task; the controller held to nothing; and hypnettorch's chunked hypernetwork and its
regulariser, on the same data and with the same network. Strengths are chosen on a seed that is not reported::

    python -m benchmarks.quality.worth.continual           # into continual.json; what is finished is kept
    python -m benchmarks.quality.worth.continual --quick   # few steps and seeds: whether it runs
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality import fashion
from benchmarks.quality.ledger import Ledger
from benchmarks.quality.worth.running import ledger_at, parser
from nni_dynconv import ChunkedController, RandomSampler, lift
from nni_dynconv.errors import ConfigError

TASKS, CLASSES, PIXELS, HIDDEN = 5, 2, 196, 100
BATCH, RATE, CODE, CHUNK = 64, 1e-3, 8, 512
TUNING = 100
"""The seed by which strengths are chosen."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Parameters
    ----------
    steps
        Of each task.
    seeds
        That are reported.
    strengths
        Of the regulariser, that are tried.
    """

    steps: int = 500
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)


QUICK = Settings(steps=4, seeds=(0,), strengths=(0.1,))


def network(outputs: int = CLASSES) -> nn.Sequential:
    """Return the network, with weights of its own."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, outputs),
    )  # fmt: skip


class Learner(nn.Module, ABC):
    """Learns tasks one after another."""

    def learned(self, task: int) -> None:
        """Take note that the next task comes; this one is not seen again."""

    def held(self, task: int) -> Tensor | float:
        """Return what is added to the loss of a task, for those before it."""
        return 0.0

    def trained(self, task: int) -> list[nn.Parameter]:
        """Return what learns in a task."""
        return list(self.parameters())

    @abstractmethod
    def forward(self, x: Tensor, task: int) -> Tensor:
        """Return ``(B, 2)``."""


class FineTuned(Learner):
    """One static network with a head for each task."""

    def __init__(self, strength: float):
        super().__init__()
        self.network = network(TASKS * CLASSES)

    def forward(self, x: Tensor, task: int) -> Tensor:
        y: Tensor = self.network(x)
        return y[:, task * CLASSES : (task + 1) * CLASSES]


class Separate(Learner):
    """A static network for each task."""

    def __init__(self, strength: float):
        super().__init__()
        self.networks = nn.ModuleList(network() for _ in range(TASKS))

    def forward(self, x: Tensor, task: int) -> Tensor:
        y: Tensor = self.networks[task](x)
        return y


class Codes(nn.Module):
    """A learned code for each task."""

    out_dim = CODE

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.ParameterList(nn.Parameter(torch.randn(CODE)) for _ in range(TASKS))

    def forward(self, task: Tensor) -> Tensor:  # (1,) -> (1, CODE)
        return torch.stack([self.codes[int(one)] for one in task])


class Generated(Learner):
    """The lifted network, all of whose weights are made from the task's number."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength, self.codes = strength, Codes()
        controller = ChunkedController(chunk=CHUNK, site_dim=8, position_dim=8, hidden=64)
        self.mutator = lift(network(), where=(nn.Linear,), base="none").mutator(
            sampler=RandomSampler(0), controller=controller, context=self.codes
        )
        self.kept: dict[int, Tensor] = {}

    def _weights(self, task: int) -> Tensor:
        made = self.mutator.weights({}, torch.tensor([task]))
        return torch.cat([one.flatten() for site in made.values() for one in site.values()])

    def trained(self, task: int) -> list[nn.Parameter]:
        others = {id(one) for place, one in enumerate(self.codes.codes) if place != task}
        return [one for one in self.parameters() if id(one) not in others]

    def held(self, task: int) -> Tensor | float:
        if not self.kept or not self.strength:
            return 0.0
        changes = [(self._weights(one) - kept).square().sum() for one, kept in self.kept.items()]
        return self.strength * torch.stack(changes).mean()

    @torch.no_grad()
    def learned(self, task: int) -> None:
        for one in range(task + 1):
            self.kept[one] = self._weights(one)

    def forward(self, x: Tensor, task: int) -> Tensor:
        y: Tensor = self.mutator(x, context=torch.tensor([task]))
        return y


class Hypnettorch(Learner):
    """hypnettorch's chunked hypernetwork, its main network and its regulariser."""

    def __init__(self, strength: float):
        super().__init__()
        try:
            from hypnettorch.hnets import ChunkedHMLP
            from hypnettorch.mnets import MLP
            from hypnettorch.utils import hnet_regularizer
        except ImportError:
            raise ConfigError("hypnettorch is missing. `pip install nni_dynconv[quality]` brings it.") from None
        self.strength, self.regulariser, self.targets = strength, hnet_regularizer, None
        sizes = {"n_in": PIXELS, "n_out": CLASSES, "hidden_layers": (HIDDEN, HIDDEN)}
        self.main = MLP(**sizes, no_weights=True, verbose=False)
        self.maker = ChunkedHMLP(
            self.main.param_shapes, CHUNK, chunk_emb_size=8, cond_in_size=CODE, layers=(64, 64), num_cond_embs=TASKS,
            verbose=False,
        )  # fmt: skip
        self.maker.apply_chunked_hyperfan_init(mnet=self.main)

    def trained(self, task: int) -> list[nn.Parameter]:
        others = {id(one) for place, one in enumerate(self.maker.conditional_params) if place != task}
        return [one for one in self.parameters() if id(one) not in others]

    def held(self, task: int) -> Tensor | float:
        if task == 0 or not self.strength:
            return 0.0
        found: Tensor = self.strength * self.regulariser.calc_fix_target_reg(self.maker, task, targets=self.targets)
        return found

    def learned(self, task: int) -> None:
        if task + 1 < TASKS:
            self.targets = self.regulariser.get_current_targets(task + 1, self.maker)

    def forward(self, x: Tensor, task: int) -> Tensor:
        y: Tensor = self.main(x.flatten(1), weights=self.maker(cond_id=task))
        return y


LEARNERS: dict[str, Callable[[float], Learner]] = {
    "separate networks": Separate,
    "fine-tuned": FineTuned,
    "generated, held to nothing": lambda strength: Generated(0.0),
    "generated": Generated,
    "hypnettorch": Hypnettorch,
}
HELD = ("generated", "hypnettorch")


def parts() -> dict[str, list[fashion.Split]]:
    """Return each task's samples, whose classes are 0 and 1."""
    data = fashion.load()
    found: dict[str, list[fashion.Split]] = {}
    for name, own in {"train": data["train"], "validation": data["held_out"], "test": data["test"]}.items():
        rows = [own.y // CLASSES == task for task in range(TASKS)]
        found[name] = [fashion.Split(own.x[some], own.y[some] % CLASSES) for some in rows]
    return found


def run(name: str, strength: float, seed: int, settings: Settings) -> dict[str, Any]:
    """Let one learner learn all tasks."""
    began, data = time.process_time(), parts()
    torch.manual_seed(seed)
    learner = LEARNERS[name](strength)
    generator, at_once = torch.Generator().manual_seed(seed), []
    for task in range(TASKS):
        optimizer = torch.optim.Adam(learner.trained(task), lr=RATE)
        learner.train()
        for _ in range(settings.steps):
            rows = torch.randint(len(data["train"][task].x), (BATCH,), generator=generator)
            loss = F.cross_entropy(learner(data["train"][task].x[rows], task), data["train"][task].y[rows])
            optimizer.zero_grad()
            (loss + learner.held(task)).backward()
            optimizer.step()
        learner.learned(task)
        at_once.append(accuracy(learner, data["test"][task], task))
    end = [accuracy(learner, data["test"][task], task) for task in range(TASKS)]
    validation = [accuracy(learner, data["validation"][task], task) for task in range(TASKS)]
    return {
        "at_once": round(fmean(at_once), 3), "end": round(fmean(end), 3), "each": [round(one, 2) for one in end],
        "validation": round(fmean(validation), 3), "parameters": sum(one.numel() for one in learner.parameters()),
        "seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def accuracy(learner: Learner, data: fashion.Split, task: int) -> float:
    """Return the share of a task's samples that are classified right, in percent."""
    learner.eval()
    return fashion.measure(lambda x: learner(x, task), data)[0]


def result(ledger: Ledger, name: str, strength: float, seed: int) -> dict[str, Any]:
    """Return what is known of a run, or run it."""
    key = f"{name}/{strength}/{seed}"
    known: dict[str, Any] | None = ledger.known("runs", key)
    if known is None:
        known = ledger.note("runs", key, run(name, strength, seed, ledger.settings))
        print(f"{key:40} at once {known['at_once']:.2f} %, in the end {known['end']:.2f} %", flush=True)
    return known or {}


PATH = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run what is not known yet."""
    options = parser(__doc__).parse_args()
    ledger = ledger_at(PATH, Settings(), QUICK if options.quick else None)
    for name in LEARNERS:
        tried = ledger.settings.strengths if name in HELD else (0.0,)
        best = (
            max(tried, key=lambda one: result(ledger, name, one, TUNING)["validation"]) if len(tried) > 1 else tried[0]
        )
        ledger.note("strengths", name, best)
        for seed in ledger.settings.seeds:
            result(ledger, name, best, seed)


if __name__ == "__main__":
    main()
