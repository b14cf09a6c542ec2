"""A training step of whole networks with weights of each sample's own, against static and against hand-written ones.

On one thread of a CPU, in float32. A step is forward, backward, and the step of SGD. Contenders take turns in one
process. ``over_static`` is the time over that of the network as it was; ``over_hand`` is the time of what is written by
hand for the same delta over ours, the fastest of it: above 1 we are faster; ``over_hypnettorch`` is the same of that
package, where it is installed, for the small network; ``memory_over_static`` is the peak of the
tensors that a step allocates; ``making_share`` is the share of the step that goes when the weights are given
beforehand. A space of NNI's hub has one architecture, drawn at random, and NNI's own
path-sampling supernet of static weights beside it::

    python -m benchmarks.networks.measure            # all of it, about twenty minutes
    python -m benchmarks.networks.measure --quick    # smaller batches
    python -m benchmarks.networks.measure --networks resnet18 --batches 32 --contenders film experts
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.by_hand import BY_HAND, Conditioned
from benchmarks.networks.hub import SPACES, path_sampled
from benchmarks.networks.peers import MISSING, ChunkedByLoop, hypernetwork
from benchmarks.networks.zoo import NETWORKS
from benchmarks.timing import interleave, keep_freed_memory, machine, merge_results, ratio
from nni_dynconv import ChunkedController, RandomSampler, VectorContext, lift
from nni_dynconv.controllers import BasisController, Controller, ExpertsController, LowRankController

CONTEXT, CODE = 8, 16
SIZES = {"proxylessnas": 64}  # of images; 32 of all others
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
ALL = NETWORKS | SPACES
Step = Callable[[], Any]


class Contender(NamedTuple):
    """How weights are made."""

    controller: Callable[[], Controller]
    base: str
    delta: str
    settings: dict[str, Any] = {}  # noqa: RUF012


CONTENDERS = {
    "film": Contender(ChunkedController, "learned", "scale"),
    "rank 4": Contender(ChunkedController, "learned", "low_rank", {"rank": 4}),
    "experts": Contender(lambda: ExpertsController(experts=4), "none", "full"),
    "low rank controller": Contender(LowRankController, "none", "full"),
    "basis": Contender(lambda: BasisController(basis=8), "none", "full"),
    "chunked": Contender(ChunkedController, "none", "full"),
}


def main() -> None:
    """Measure row by row, and keep each."""
    options = _parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if hypernetwork() is None:
        print(MISSING, flush=True)
    for network, batch in itertools.product(options.networks, options.batches):
        for name in options.contenders:
            row = measure(network, batch, name, options.seconds)
            print(describe(row), flush=True)
            if options.output is not None:
                merge_results(
                    options.output, machines={"networks": machine()}, networks=among(options.output, "networks", row)
                )


def among(path: Path, section: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a section of results with this one in the place of its like, or at the end."""
    rows = json.loads(path.read_text()).get(section, []) if path.exists() else []
    names = "network", "batch", "contender", "threads"
    places = {tuple(one[name] for name in names): place for place, one in enumerate(rows)}
    place = places.get(tuple(row[name] for name in names), len(rows))
    return [*rows[:place], row, *rows[place + 1 :]]


def measure(network: str, batch: int, name: str, seconds: float) -> dict[str, Any]:
    """Measure one network with one kind of weights."""
    torch.manual_seed(0)
    size = SIZES.get(network, 32)
    x, context = torch.randn(batch, 3, size, size), torch.randn(batch, CONTEXT)
    y = torch.randint(10, (batch,))
    contender = CONTENDERS[name]
    mutator = mutator_of(network, contender)
    static = path_sampled(SPACES[network], mutator.reset()) if network in SPACES else NETWORKS[network]()
    steps = {
        "static": step_of(static, lambda: static(x), y),
        "ours": step_of(mutator.space, lambda: mutator(x, context=context), y),
        "given": _given(mutator, x, context, y),
    }
    wraps = BY_HAND.get(name, ()) if network in NETWORKS else ()
    for wrap in wraps:
        hand = Conditioned(NETWORKS[network](), wrap, CONTEXT)
        steps[wrap.__name__] = step_of(hand, lambda hand=hand: hand(x, context), y)
    steps |= _peers(network, name, x, context, y)
    times = interleave(steps, seconds, turn=0, patience=float("inf"), clock=clock_of())
    hands = [wrap.__name__ for wrap in wraps]
    over_hand = min((ratio(times, hand, "ours") for hand in hands), default=None)
    return {
        "network": network, "batch": batch, "controller": type(mutator.controller).__name__, "contender": name,
        "delta": contender.delta, "threads": torch.get_num_threads(),
        "over_static": round(ratio(times, "ours", "static").median, 3),
        "spread": [round(one, 3) for one in ratio(times, "ours", "static")[1:]],
        "over_hand": None if over_hand is None else round(over_hand.median, 3),
        "over_hypnettorch": round(ratio(times, "hypnettorch", "ours").median, 3) if "hypnettorch" in times else None,
        "memory_over_static": round(peak(steps["ours"]) / peak(steps["static"]), 3),
        "making_share": round(max(0.0, 1 - ratio(times, "given", "ours").median), 3),
        "milliseconds": {one: round(1e3 * median(times[one]), 1) for one in times},
    }  # fmt: skip


def mutator_of(network: str, contender: Contender) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lifted = lift(ALL[network](), where=LAYERS, base=contender.base)
        mutator = lifted.mutator(
            sampler=RandomSampler(0), controller=contender.controller(), context=VectorContext(CONTEXT, CODE),
            delta=contender.delta, **contender.settings,
        )  # fmt: skip
    mutator.reset()
    return mutator.train()


def _peers(network: str, name: str, x: Tensor, context: Tensor, y: Tensor) -> dict[str, Step]:
    """Return the step of hypnettorch's chunked hypernetwork, of the small network, where it is installed."""
    make = hypernetwork()
    if (network, name) != ("small", "chunked") or make is None:
        return {}
    model = ChunkedByLoop(make, NETWORKS[network](), CONTEXT, CODE)
    return {"hypnettorch": step_of(model, lambda: model(x, context), y)}


def step_of(model: nn.Module, forward: Callable[[], Tensor], y: Tensor) -> Step:
    """Return a training step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(forward(), y).backward()
        optimizer.step()

    return step


def _given(mutator: Any, x: Tensor, context: Tensor, y: Tensor) -> Step:
    """Return a step whose weights are made beforehand, and get their gradients."""
    source = mutator.space.weight_source
    with torch.no_grad():
        code = source.of_context(context)
        sites = list(source.sites.values())
        made = dict(zip(source.sites, source.make_factored(sites, code), strict=True))
    leaves = {name: {one: leaf_of(value) for one, value in own.items()} for name, own in made.items()}

    def forward() -> Tensor:
        before, source.make_factored = source.make_factored, lambda some, code: [leaves[site.name] for site in some]
        try:
            result: Tensor = mutator(x, context=context)
        finally:
            source.make_factored = before
        return result

    return step_of(mutator.space, forward, y)


def leaf_of(made: Any) -> Any:
    """Return a tensor, or what is made of several, as leaves that want gradients."""
    if isinstance(made, Tensor):
        return made.detach().requires_grad_()
    return type(made)(*map(leaf_of, made)) if isinstance(made, tuple) else made


def peak(step: Step) -> float:
    """Return the bytes that a step has allocated at most at one time, beyond what stood before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    changes = sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return float(most)


def clock_of() -> Callable[[], float]:
    """Return the clock: of one thread the time that this process has computed, which other programs hardly change."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def describe(row: dict[str, Any]) -> str:
    """Return a row as a line."""
    hand = "" if row["over_hand"] is None else f", {row['over_hand']:.2f}x as fast as by hand"
    if row["over_hypnettorch"] is not None:
        hand += f", {row['over_hypnettorch']:.2f}x as fast as hypnettorch in a loop over the samples"
    return (
        f"{row['network']:12} B {row['batch']:3} {row['contender']:20} {row['over_static']:5.2f}x of static "
        f"({row['milliseconds']['static']:.0f} ms), memory {row['memory_over_static']:.2f}x, "
        f"making {row['making_share']:.0%}{hand}"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--networks", nargs="+", default=list(ALL), choices=ALL)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0, help="time for each row; slow steps take more")
    parser.add_argument("--quick", action="store_true", help="one small batch")
    parser.add_argument("--output", type=Path, help="such as benchmarks/results.json; else nothing is written")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.seconds = [8], 3.0
    return options


if __name__ == "__main__":
    main()
