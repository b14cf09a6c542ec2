"""Lift every architecture of ``models.json``, freeze it, save it, and read it back: ``make sweep-save``.

A model passes where it is saved, and the loaded network gives the same: outputs in evaluation, for the batch that it
was saved with and for one sample, to 1e-5 of the largest value; after a step of training, with the same random
numbers, every parameter and buffer of it. What is not the same, and was saved, is counted apart: it may not be. Models
of transformers are asked to return no cache (``use_cache``), which is no tensor.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
import nni_dynconv  # noqa: E402
from benchmarks.lifting.models import make_model  # noqa: E402
from benchmarks.lifting.sweep import FACTOR, WHERE, sweep  # noqa: E402
from nni_dynconv import VectorContext, export, lift  # noqa: E402
from nni_dynconv.generation import DynamicNetwork  # noqa: E402
from nni_dynconv.keeping import generators  # noqa: E402

LIMIT = 240
"""Seconds of a processor."""
TOLERANCE = 1e-5
TRUSTED = ("pytorchcv", "transformers")
"""Packages whose classes are imported, where a network is kept by its class."""
RATE = 1e-3


def try_one(one: dict[str, Any]) -> dict[str, Any]:
    """Return how far a model came, and what stopped it."""
    found: dict[str, Any] = {**one, "stage": "lift"}
    try:
        frozen, inputs = frozen_of(one)
        save_and_compare(frozen, found, *inputs)
    except Exception as error:
        return {**found, "reason": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
    return {**found, "stage": "passed", "reason": ""}


def frozen_of(one: dict[str, Any]) -> tuple[DynamicNetwork, tuple[Tensor, Tensor]]:
    """Return a model, lifted, in evaluation, with deltas that count, and inputs with their contexts."""
    network, x = make_model(one)
    if hasattr(network, "config"):
        network.config.use_cache = False
    mutator = lift(network, where=WHERE[one["package"]]).mutator(context=VectorContext(4, 8)).eval()
    with torch.no_grad():
        mutator.source.factors.fill_(FACTOR)
    return mutator.freeze({}), (x, torch.randn(len(x), 4))


def save_and_compare(frozen: DynamicNetwork, found: dict[str, Any], *inputs: Tensor) -> None:
    """Save a network, read it back and compare; note how far it came, and what it cost.

    Raises
    ------
    AssertionError
        What was read back is not the same.
    """
    found |= {"stage": "run", "values": sum(p.numel() for p in frozen.parameters())}
    with torch.no_grad():
        frozen(*inputs)
    with tempfile.TemporaryDirectory() as folder:
        found["stage"], start = "save", time.process_time()
        export.save(frozen, folder)
        found |= {"stage": "load", "save": round(time.process_time() - start, 1)}
        start = time.process_time()
        loaded = nni_dynconv.load(folder, trust=TRUSTED)
        found |= {"stage": "different", "load": round(time.process_time() - start, 2)}
    with torch.no_grad():
        for samples in (len(inputs[0]), 1):
            few = [one[:samples] for one in inputs]
            _check(loaded(*few), frozen(*few), "evaluation")
    found["stage"] = "different after a step"
    ours, theirs = _stepped(copy.deepcopy(frozen), inputs), _stepped(loaded, inputs)
    for name in theirs.keys() & ours.keys():  # what a forward makes anew each time has a name in the file alone
        _check(theirs[name], ours[name], name)


def _stepped(network: DynamicNetwork, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return a network's tensors after a step of training."""
    generators.seed(1)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    outputs = [one for one in _tensors(network(*inputs)) if one.requires_grad]
    torch.stack([one.square().mean() for one in outputs]).sum().backward()
    optimizer.step()
    return {**dict(network.named_buffers()), **dict(network.named_parameters())}


def _tensors(output: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(dict(output) if hasattr(output, "keys") else output)
    return [one for one in leaves if isinstance(one, Tensor)]


def _check(theirs: Any, ours: Any, where: str) -> None:
    first, second = _tensors(theirs), _tensors(ours)
    if not first or [one.shape for one in first] != [one.shape for one in second]:
        raise AssertionError(f"{where}: other tensors are given")
    for a, b in zip(first, second, strict=True):
        distance = (
            ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1)).item() if a.numel() else 0
        )
        if not distance <= TOLERANCE:
            raise AssertionError(f"{where}: differs by {distance:.1e}")


def report(results: list[dict[str, Any]]) -> str:
    """Return counts, what saving costs, and a table of all that was not saved."""
    counts = Counter(one["stage"] for one in results)
    passed = [one for one in results if one["stage"] == "passed"]
    different = sum(count for stage, count in counts.items() if stage.startswith("different"))
    lines = [f"{len(passed)} of {len(results)} are saved and read back the same, {different} otherwise.", ""]
    for what in ("save", "load"):
        seconds = sorted(one[what] for one in passed)
        if seconds:
            middle, most = seconds[len(seconds) // 2], seconds[-1]
            lines.append(f"Seconds of a processor to {what}: {middle} in the middle, {most} at most.")
    lines += ["", "| model | of | stopped at | why |", "| --- | --- | --- | --- |"]
    for one in results:
        if one["stage"] != "passed":
            why = one["reason"].replace("|", "\\|")
            lines.append(f"| `{one['model']}` | {one['package']} | {one['stage']} | {why} |")
    return "\n".join(lines)


def warm_up() -> None:
    """Load what saving loads, once for all processes."""
    mutator = lift(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))).mutator()
    save_and_compare(mutator.eval().freeze({}), {}, torch.randn(2, 1, 3, 3))


if __name__ == "__main__":
    warm_up()
    sweep(__doc__ or "", HERE / "saving.json", try_one, report, LIMIT)
