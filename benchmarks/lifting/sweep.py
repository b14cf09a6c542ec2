"""Lift every architecture of ``models.json`` and see that it is what it was: ``make sweep``.

Each runs in a process of its own, with a limit; what is in the results already is not run again. A model passes where
it is lifted, equals the original at the start to 1e-5, gives each sample of a batch what the sample gets alone, is the
same frozen, and its controller gets a gradient. Of networks that enlarge rounding, four times the distance between the
original and itself in float64 is allowed.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import nni_dynconv  # noqa: F401  (NNI's order of imports)
from benchmarks.lifting.models import make_model
from nni_dynconv import VectorContext, lift

HERE = Path(__file__).parent
CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
WHERE = {"pytorchcv": None, "transformers": [*CONVOLUTIONS, nn.Linear, nn.LayerNorm]}
LIMIT = 60
"""Seconds of a processor; five times as many by the clock."""
FACTOR = 0.3
Attempt = Callable[[dict[str, Any]], dict[str, Any]]


def try_one(one: dict[str, Any]) -> dict[str, Any]:
    """Return how far a model came, and what stopped it."""
    stage = "original"
    found: dict[str, Any] = {**one}
    try:
        network, x = make_model(one)
        with torch.no_grad():
            before = first_of(network(x))
            rounding = found["rounding"] = 4 * _rounding(network, x, before)
        stage = "lift"
        lifted = lift(network, where=WHERE[one["package"]])
        found["lifted"], found["kept"] = len(lifted.changes), len(lifted.kept)
        mutator = lifted.mutator(context=VectorContext(4, 8)).eval()
        context = torch.randn(len(x), 4)
        stage = "equal at the start"
        with torch.no_grad():
            _check(first_of(mutator(x, context=context)), before, max(1e-5, rounding))
            mutator.source.factors.fill_(FACTOR)
            stage = "alone"
            y = first_of(mutator(x, context=context))
            alone = [first_of(mutator(x[k : k + 1], context=context[k : k + 1])) for k in range(len(x))]
            _check(torch.cat(alone), y, max(1e-4, rounding))
            if (y - before).abs().max() == 0:
                raise AssertionError("the context changes nothing")
            stage = "frozen"
            _check(first_of(mutator.freeze({})(x, context)), y, max(1e-5, rounding))
        stage = "gradient"
        first_of(mutator(x, context=context)).sum().backward()
        if not any(p.grad is not None and p.grad.abs().sum() > 0 for p in mutator.controller.parameters()):
            raise AssertionError("the controller has no gradient")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return {**found, "stage": stage, "reason": reason[:200]}
    return {**found, "stage": "passed", "reason": ""}


def first_of(output: Any) -> Tensor:
    """Return the first tensor of an output, of whatever form."""
    leaves = pytree.tree_leaves(dict(output) if hasattr(output, "keys") else output)
    return next(one for one in leaves if isinstance(one, Tensor) and one.is_floating_point())


def _check(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    if ours.shape != theirs.shape:
        raise AssertionError(f"the output is {tuple(ours.shape)}, and was {tuple(theirs.shape)}")
    distance = _distance(ours, theirs)
    if not distance <= tolerance:
        raise AssertionError(f"outputs differ by {distance:.1e}")


def _rounding(network: nn.Module, x: Tensor, y: Tensor) -> float:
    try:
        exact = first_of(copy.deepcopy(network).double()(x.double() if x.is_floating_point() else x))
    except RuntimeError:  # it is of one precision
        return 0.0
    return _distance(y.double(), exact)


def _distance(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


def in_a_process(one: dict[str, Any], attempt: Attempt, limit: int = LIMIT) -> dict[str, Any]:
    """Try a model in a process of its own, which ends after some seconds."""

    def limited() -> dict[str, Any]:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        return attempt(one)

    context = multiprocessing.get_context("fork")  # what is imported already is not imported again
    answers = context.Queue()
    process = context.Process(target=lambda: answers.put(limited()))
    start, found = time.perf_counter(), None
    process.start()
    while process.is_alive() or not answers.empty():
        try:
            found = answers.get(timeout=0.2)
            break
        except Empty:
            if time.perf_counter() - start > 5 * limit:
                process.kill()
                break
    else:
        process.join()
    found = found or {**one, "stage": "limit", "reason": f"its process was ended ({process.exitcode})"}
    process.join()
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def report(results: list[dict[str, Any]]) -> str:
    """Return counts, and a table of every failure."""
    counts = Counter(one["stage"] for one in results)
    lines = [f"{counts['passed']} of {len(results)} pass.", ""]
    lines += ["| model | of | stopped at | why |", "| --- | --- | --- | --- |"]
    for one in results:
        if one["stage"] != "passed":
            why = one["reason"].replace("|", "\\|")
            lines.append(f"| `{one['model']}` | {one['package']} | {one['stage']} | {why} |")
    return "\n".join(lines)


def main() -> None:
    sweep(__doc__ or "", HERE / "results.json", try_one, report)


def sweep(
    about: str,
    output: Path,
    attempt: Attempt,
    told: Callable[[list[dict[str, Any]]], str],
    limit: int = LIMIT,
    names: Sequence[str] | None = None,
) -> None:
    """Try every model that has no result yet, or those of some names, and print what came of it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--only", help="names of models, with commas")
    arguments = parser.parse_args()
    import transformers  # noqa: F401  before the processes part

    torch.set_num_threads(1)
    models = json.loads((HERE / "models.json").read_text(encoding="utf-8"))
    wanted = arguments.only.split(",") if arguments.only else names
    if wanted is not None:
        models = [one for one in models if one["model"] in wanted]
    done = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else []
    known = {(one["package"], one["model"]) for one in done}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for one in models:
        if (one["package"], one["model"]) not in known:
            done.append(in_a_process(one, attempt, limit))
            print(f"{one['model']}: {done[-1]['stage']} {done[-1]['reason']} ({done[-1]['seconds']} s)", flush=True)
            arguments.output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    print(told(done))


if __name__ == "__main__":
    main()
