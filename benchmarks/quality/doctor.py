"""Does the doctor find six planted faults, and is it silent about healthy runs? Prints a table, writes ``doctor.json``.

Faults are planted into the digits' space and the quickstart's, before anything is trained and, but for the scale, after
a third of a short run; healthy runs are those of every sampler, at the start, after a third, and at the end. The ranges
of healthy readings that it prints are what the thresholds of ``nni_dynconv/diagnosis/thresholds.py`` are set by. ENAS,
at its own learning rate, may have decided after twenty steps: the doctor then says so, and is right. About two minutes
on one idle core::

    python -m benchmarks.quality.doctor
    python -m benchmarks.quality.doctor --seeds 3 4 --add    # beside the seeds that the file holds
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from examples.digits import DigitSpace, TurnedDigits
from examples.video_denoising.data import NoisyBatches
from examples.video_denoising.networks import FrameStatistics
from examples.video_denoising.space import DenoisingSpace
from nni_dynconv import (
    DartsSampler,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
    diagnose,
)
from nni_dynconv.diagnosis import Diagnosis

SAMPLERS = {"random": RandomSampler, "gdas": GdasSampler, "darts": DartsSampler, "enas": EnasSampler}
BATCH = {"digits": 32, "video": 16}


class Task(NamedTuple):
    """A space with its data: training and held-out batches in turn, loss and learning rate."""

    make: Callable[[int, Any], DynamicWeightMutator]
    batches: Callable[[int], Iterator[tuple[Any, Any]]]
    loss: Callable[[Any, Any], torch.Tensor]
    learning_rate: float
    candidate: tuple[str, str]


def digits(seed: int, sampler: Any) -> DynamicWeightMutator:
    torch.manual_seed(seed)
    return DynamicWeightMutator(DigitSpace(), sampler=sampler, context=VectorContext(4, dim=16))


def video(seed: int, sampler: Any) -> DynamicWeightMutator:
    torch.manual_seed(seed)
    return DynamicWeightMutator(DenoisingSpace(), sampler=sampler, context=FrameStatistics(3, 32), base="learned")


def digit_batches(seed: int) -> Iterator[tuple[Any, Any]]:
    torch.manual_seed(seed)
    loaders = [
        DataLoader(TurnedDigits(train), BATCH["digits"], shuffle=True, drop_last=True) for train in (True, False)
    ]
    return zip(*map(itertools.cycle, loaders), strict=False)


def video_batches(seed: int) -> Iterator[tuple[Any, Any]]:
    loaders = [NoisyBatches(split, 200, BATCH["video"], seed=seed) for split in ("train", "validation")]
    return ((loaders[0][n % 200], loaders[1][n % 200]) for n in itertools.count())


TASKS = {
    "digits": Task(digits, digit_batches, F.cross_entropy, 2e-3, ("body", "conv3")),
    "video": Task(video, video_batches, F.mse_loss, 5e-3, ("second", "conv3")),
}


def train(mutator: DynamicWeightMutator, task: Task, batches: Any, steps: range, total: int) -> None:
    """Search for some steps, as the guide's plain loop does."""
    roles = mutator.parameters_by_role()
    parameters = roles["weights"] + roles["controller"]
    weights = torch.optim.Adam(parameters, lr=task.learning_rate)
    architecture = mutator.sampler.optimizer() if mutator.sampler.learns == "gradient" else None
    for step, ((seen, y), ((x, c), held_out)) in zip(steps, batches, strict=False):
        mutator.sampler.anneal(step / total)
        mutator.reset()
        weights.zero_grad()
        task.loss(mutator(seen[0], context=seen[1]), y).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        weights.step()
        learn_architecture(mutator, architecture, lambda x=x, c=c, y=held_out: task.loss(mutator(x, context=c), y))


def learn_architecture(
    mutator: DynamicWeightMutator, optimizer: torch.optim.Optimizer | None, run: Callable[[], torch.Tensor]
) -> None:
    if optimizer is None:
        sample = mutator.reset()
        with torch.no_grad():
            mutator.sampler.observe(sample, -run().item())
        return
    optimizer.zero_grad()
    mutator.architecture_loss(run).backward()
    optimizer.step()


# Faults


def _generate(mutator: DynamicWeightMutator, change: Callable[[Any, Any, Any], Any]) -> None:
    plain = mutator.controller.generate
    vars(mutator.controller)["generate"] = lambda sites, context: change(plain, sites, context)


def zero_controller(mutator: DynamicWeightMutator, task: Task) -> None:
    _generate(mutator, lambda plain, sites, context: [0 * one for one in plain(sites, context)])


def context_not_connected(mutator: DynamicWeightMutator, task: Task) -> None:
    _generate(mutator, lambda plain, sites, context: plain(sites, torch.zeros_like(context)))


def scale_ten_times_off(mutator: DynamicWeightMutator, task: Task) -> None:
    _generate(mutator, lambda plain, sites, context: [10 * one for one in plain(sites, context)])


def scale_a_tenth(mutator: DynamicWeightMutator, task: Task) -> None:
    _generate(mutator, lambda plain, sites, context: [one / 10 for one in plain(sites, context)])


def dead_candidate(mutator: DynamicWeightMutator, task: Task) -> None:
    label, name = task.candidate
    mutator.space.get_submodule(label)[name].register_forward_hook(lambda op, args, y: (y - 1e3).relu())


def norm_in_evaluation_mode(mutator: DynamicWeightMutator, task: Task) -> None:
    _some_norm(mutator).eval()


def norm_in_training_mode(mutator: DynamicWeightMutator, task: Task) -> None:
    mutator.eval()
    _some_norm(mutator).train()


def _some_norm(mutator: DynamicWeightMutator) -> Any:
    return next(one for one in mutator.space.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm))


def collapsed_sampler(mutator: DynamicWeightMutator, task: Task) -> None:
    with torch.no_grad():
        mutator.sampler.alpha(task.candidate[0])[-1] += 10.0  # the last candidate of both is a skip


FAULTS: dict[str, tuple[Callable[[DynamicWeightMutator, Task], None], str, bool]] = {
    "zero controller": (zero_controller, "controller-zero", True),
    "context not connected": (context_not_connected, "context-ignored", True),
    "scale 10x too large": (scale_ten_times_off, "scale", False),
    "scale 10x too small": (scale_a_tenth, "scale", False),
    "dead candidate": (dead_candidate, "candidate-dead", True),
    "BatchNorm in evaluation mode": (norm_in_evaluation_mode, "norm-mode", True),
    "BatchNorm in training mode": (norm_in_training_mode, "norm-mode", True),
    "collapsed sampler": (collapsed_sampler, "sampler-collapsed", True),
}
"""What is planted, the finding that is wanted, and whether it is also planted into a trained network."""


# Runs


def told(diagnosis: Diagnosis) -> list[str]:
    """Codes of faults and warnings."""
    return [one.code for one in (*diagnosis.faults, *diagnosis.warnings)]


class Healthy:
    """Ranges of readings of healthy runs."""

    def __init__(self, ranges: dict[str, list[float]]):
        self.ranges = ranges

    def add(self, d: Diagnosis) -> None:
        when = "start" if d.progress == 0 else "training"
        for site in d.sites:
            self._widen(f"{when}: weights over static", site.weight_scale)
            self._widen(f"{when}: gain over static", site.gain_ratio)
            self._widen(f"{when}: made", site.made)
        assert d.context is not None
        self._widen(f"{when}: variation over contexts", d.context.variation)
        self._widen(f"{when}: gradient into the context", d.context.gradient)
        for one in d.candidates:
            self._widen(f"{when}: deviation of candidates", one.deviation)
            self._widen(f"{when}: gradient of candidates", one.gradient)
        for choice in d.choices:
            self._widen(f"{when}: entropy of choices", choice.entropy)
        for norm in d.norms:
            if norm.updates is not None and norm.updates >= 50:
                self._widen("settled: shift of BatchNorms", norm.mean_shift)
                self._widen("settled: variance of BatchNorms", norm.variance_ratio)

    def _widen(self, name: str, value: float | None) -> None:
        if value is not None:
            low, high = self.ranges.get(name, [value, value])
            self.ranges[name] = [min(low, value), max(high, value)]


def healthy_run(task: Task, make_sampler: Any, seed: int, steps: int, healthy: Healthy) -> list[str]:
    """Return what is told, wrongly, about a run at its start, after a third, and at its end."""
    mutator, batches = task.make(seed, make_sampler(seed)), task.batches(seed)
    held_out = [next(batches)[1] for _ in range(4)]
    codes, done = [], 0
    for upto in (0, steps // 3, steps):
        train(mutator, task, batches, range(done, upto), steps)
        done = upto
        found = diagnose(mutator, held_out, task.loss, progress=upto / steps)
        codes += told(found)
        healthy.add(found)
    return codes


def planted_run(task: Task, fault: str, seed: int, steps: int, trained: bool) -> list[str]:
    """Return what is told about a fault."""
    plant = FAULTS[fault][0]
    mutator, batches = task.make(seed, GdasSampler(seed)), task.batches(seed)
    held_out = [next(batches)[1] for _ in range(4)]
    if trained:
        train(mutator, task, batches, range(steps // 3), steps)
    plant(mutator, task)
    return told(diagnose(mutator, held_out, task.loss, progress=1 / 3 if trained else 0.0))


def run(seed: int, steps: int, healthy: Healthy) -> list[dict[str, Any]]:
    """Run everything with one seed and return what was told."""
    rows = []
    for space, task in TASKS.items():
        for fault, (_, wanted, also_trained) in FAULTS.items():
            for trained in (False, True)[: 1 + also_trained]:
                codes = planted_run(task, fault, seed, steps, trained)
                rows.append(_row(space, fault, "training" if trained else "start", wanted, seed, codes))
        for sampler, make in SAMPLERS.items():
            codes = healthy_run(task, make, seed, steps, healthy)
            rows.append(_row(space, f"nothing ({sampler})", "three times", None, seed, codes))
    return rows


def _row(space: str, planted: str, when: str, wanted: str | None, seed: int, codes: list[str]) -> dict[str, Any]:
    told_of = sorted(set(codes))
    row = {"space": space, "planted": planted, "when": when, "wanted": wanted, "seed": seed, "told": told_of}
    return {**row, "right": told_of == ([wanted] if wanted else [])}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Give a line for each fault and space, over seeds."""
    yield f"{'space':7} {'planted':29} {'when':12} {'wanted':18} {'right':7} else"
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["space"], row["planted"], row["when"]].append(row)
    for (space, planted, when), ones in groups.items():
        wanted = ones[0]["wanted"]
        others = ", ".join(sorted({code for one in ones for code in one["told"]} - {wanted}))
        right = f"{sum(one['right'] for one in ones)} of {len(ones)}"
        yield f"{space:7} {planted:29} {when:12} {wanted or 'nothing':18} {right:7} {others}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="of the healthy runs; faults are planted after a third")
    parser.add_argument("--add", action="store_true", help="keep what the file holds of other seeds")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("doctor.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    known = json.loads(options.output.read_text()) if options.add else {"rows": [], "healthy": {}}
    rows = [row for row in known["rows"] if row["seed"] not in options.seeds]
    healthy = Healthy(known["healthy"])
    for seed in options.seeds:
        rows += run(seed, options.steps, healthy)
        options.output.write_text(dump(options.steps, rows, healthy), encoding="utf-8")
    print("\n".join(table(rows)))
    print("\nhealthy readings, over all spaces, samplers and seeds: least and most")
    for name, (low, high) in healthy.ranges.items():
        print(f"{name:40} {low:10.3g} {high:10.3g}")
    print(f"\n{sum(row['right'] for row in rows)} of {len(rows)} right; {time.perf_counter() - began:.0f} s")


def dump(steps: int, rows: list[dict[str, Any]], healthy: Healthy) -> str:
    """Write a run a line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    ranges = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps([float(f'{v:.4g}') for v in both])}"
        for name, both in healthy.ranges.items()
    )
    return f'{{\n "steps": {steps},\n "rows": [\n{lines}\n ],\n "healthy": {{\n{ranges}\n }}\n}}\n'


if __name__ == "__main__":
    main()
