"""How large each site's outputs are at the start, for every controller and kind of delta, over sampled architectures.

The gain of a site is the root mean square of its op's output over that of what its weights multiply (behind the ReLU,
in the separable ops), as the network gives it: activations behind BatchNorm and ReLU; the stem sees smoothed noise.
One gain is measured for each site, architecture and seed, over a batch of samples with a context each. The bar: every
single one within 0.5 and 2. Normalisations, whose output has one size whatever goes in, are left out.

Then whole networks, plain and residual, of 8 to 32 blocks without normalisation: ``initialisation_nets.py``. Writes
``initialisation.json``; about four minutes on one core, of which ``--part nets`` are two::

    python benchmarks/quality/initialisation.py
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.generation import controllers as made
from nni_dynconv.generation.controllers import Controller
from nni_dynconv.ops import (
    DynamicConv2d,
    DynamicConvTranspose2d,
    DynamicDilConv,
    DynamicLinear,
    DynamicOp,
    DynamicSepConv,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.quality import initialisation_nets as nets

TABLE = Path(__file__).with_name("initialisation.json")
LOW, HIGH = 0.5, 2.0
BATCH, SIZE, DIM = 8, 12, 8
RANK = 8  # of the delta `low_rank`, its default; with 4 and no base single gains fall to 0.4, as a row beside shows
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "chunked": made.ChunkedController,
    "low_rank": made.LowRankController,
    "coordinate, centre": lambda: made.CoordinateController(nesting="centre"),
    "coordinate, transform": lambda: made.CoordinateController(nesting="transform"),
    "coordinate, free": lambda: made.CoordinateController(nesting="free"),
    "flat": made.FlatController,
    "experts, sigmoid": lambda: made.ExpertsController(routing="sigmoid"),
    "experts, softmax": lambda: made.ExpertsController(routing="softmax"),
    "experts, linear": lambda: made.ExpertsController(routing="linear"),
    "experts, by row": lambda: made.ExpertsController(routing="linear", shares="row"),
    "basis, by site": made.BasisController,
    "basis, by row": lambda: made.BasisController(shares="row"),
}
DELTA = 0.3  # the factor of a delta beside a base at the start
RECIPES = (("none", "full"), ("none", "low_rank"), ("learned", "full"), ("learned", "low_rank"), ("learned", "scale"))
Gains = dict[str, list[float]]


class Space(ModelSpace):
    """Ops of every kind and kernel between BatchNorm and ReLU; separable ones have no norm that would hide a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = DynamicConv2d(3, 16, nni.choice("stem", [3, 5, 7]), padding="same")
        self.blocks = nn.ModuleList(LayerChoice(_candidates(16), label=f"block{number}") for number in range(2))
        self.down = DynamicConv2d(16, 32, nni.choice("down", [2, 4]), stride=2, padding="valid")
        self.wide = LayerChoice(_candidates(32), label="wide")
        self.up = DynamicConvTranspose2d(32, 16, 4, stride=2)
        self.head = DynamicLinear(16, 10)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in (16, 16, 16, 32, 32, 16))

    def forward(self, x: Tensor) -> Tensor:
        for op, norm in zip((self.stem, *self.blocks, self.down, self.wide, self.up), self.norms, strict=True):
            x = norm(op(x)).relu()
        return self.head(x.mean((2, 3)))


def _candidates(C: int) -> dict[str, nn.Module]:
    ops: dict[str, nn.Module] = {f"conv{k}": DynamicConv2d(C, C, k, padding=k // 2) for k in (1, 3, 5)}
    ops |= {f"separable{k}": DynamicSepConv(C, C, k, norm=None) for k in (3, 5)}
    return {**ops, "dilated3": DynamicDilConv(C, C, 3, norm=None), "grouped3": DynamicConv2d(C, C, 3, 1, 1, groups=4)}


def mutator_of(controller: Controller, base: str, delta: str, seed: int, rank: int = RANK) -> DynamicWeightMutator:
    """Make the supernet of a seed."""
    torch.manual_seed(seed)
    recipe: dict[str, Any] = {"base": base, "delta": delta, "rank": rank}
    return DynamicWeightMutator(
        Space(), sampler=RandomSampler(seed=seed), controller=controller, context=VectorContext(DIM, DIM), **recipe
    )


@torch.no_grad()
def gains_of(mutator: DynamicWeightMutator, count: int, seed: int, twin: bool = False) -> Gains:
    """Measure the gains in each of ``count`` architectures; ``twin``: with weights as torch's layers have them."""
    generator = torch.Generator().manual_seed(seed)
    gains: Gains = defaultdict(list)

    def note(op: DynamicOp, args: tuple[Tensor, ...], y: Tensor) -> None:
        x = args[0].relu() if isinstance(op, DynamicSepConv) else args[0]
        y = op.forward(args[0], _torchs(op, generator)) if twin else y  # not called: this is its hook
        gains[str(op.site)].append(float(y.square().mean().sqrt() / x.square().mean().sqrt()))

    hooks = [op.register_forward_hook(note) for op in mutator.space.modules() if isinstance(op, DynamicOp)]
    for _ in range(count):
        noise = torch.randn(BATCH, 3, SIZE + 2, SIZE + 2, generator=generator)
        mutator.reset()
        mutator(3 * F.avg_pool2d(noise, 3, 1), context=torch.randn(BATCH, DIM, generator=generator))
    for hook in hooks:
        hook.remove()
    return gains


def _torchs(op: DynamicOp, generator: torch.Generator) -> Tensor:
    """Draw as torch's layers do, weights and biases uniform within ``1 / sqrt(fan_in)``."""
    specs = [(spec.numel, spec.fan_in**-0.5) for spec in op.weight_specs()]
    return torch.cat([(2 * torch.rand(numel, generator=generator) - 1) * reach for numel, reach in specs])


# What is measured


def plain(controller: Controller) -> Controller:
    """Initialise every linear map as torch does by default."""
    bind = controller.bind

    def bind_plainly(*args: Any) -> None:
        bind(*args)
        for module in controller.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    vars(controller)["bind"] = bind_plainly
    return controller


def unscaled(mutator: DynamicWeightMutator) -> DynamicWeightMutator:
    """Let weights be what the controller gives, without the scale by fan-in."""
    for stds in mutator.source._stds.values():
        stds.update(dict.fromkeys(stds, 1.0))
    return mutator


class Contender(NamedTuple):
    """A row to come: ``start(seed)`` makes what is measured."""

    name: str
    base: str
    delta: str
    start: Callable[[int], DynamicWeightMutator]
    ours: bool = True
    twin: bool = False


def contenders() -> Iterator[Contender]:
    """Name ours, which have to hold the bar, and then the others, printed beside them."""
    for name, make in CONTROLLERS.items():
        for base, delta in RECIPES:
            yield Contender(name, base, delta, partial(_ours, make, base, delta))
    yield Contender("none needed", "learned", "none", partial(_ours, made.ChunkedController, "learned", "none"))
    beside = partial(Contender, ours=False)
    yield beside("coordinate, centre; of rank 4", "none", "low_rank", _of_rank_4)
    yield beside("static twin, torch's layers", "none", "full", _chunked, twin=True)
    yield beside("chunked, torch's default init", "none", "full", lambda seed: unscaled(_chunked(seed, plainly=True)))
    yield beside("the same, scaled by fan-in", "none", "full", partial(_chunked, plainly=True))
    yield beside("chunked without signs (version 0.1.0)", "none", "full", _chunked)


def _ours(make: Callable[[], Controller], base: str, delta: str, seed: int) -> DynamicWeightMutator:
    return mutator_of(make(), base, delta, seed)


def _of_rank_4(seed: int) -> DynamicWeightMutator:
    return mutator_of(made.CoordinateController(), "none", "low_rank", seed, rank=4)


def _chunked(seed: int, plainly: bool = False) -> DynamicWeightMutator:
    controller = made.ChunkedController(chunk=32, signs=False)  # that of version 0.1.0
    return mutator_of(plain(controller) if plainly else controller, "none", "full", seed)


def row(one: Contender, count: int, seeds: list[int]) -> dict[str, Any]:
    """Measure a contender and sum up its gains, a run for each seed."""
    runs = [gains_of(one.start(seed), count, seed, one.twin) for seed in seeds]
    values = [gain for run in runs for site in run.values() for gain in site]
    logs = torch.tensor(values).log()
    sites = sorted({site for run in runs for site in run})
    ranges = {site: [gain for run in runs for gain in run.get(site, [])] for site in sites}
    return {
        "controller": one.name,
        "base": one.base,
        "delta": one.delta,
        "ours": one.ours,
        "least": round(min(values), 3),
        "most": round(max(values), 3),
        "typical": round(math.exp(logs.mean()), 3),
        "outside": sum(not LOW <= gain <= HIGH for gain in values),
        "gains": len(values),
        "seeds": [[round(min(map(min, run.values())), 3), round(max(map(max, run.values())), 3)] for run in runs],
        "sites": {site: [round(min(own), 3), round(max(own), 3)] for site, own in ranges.items()},
    }


def line(one: dict[str, Any]) -> str:
    """Print a row."""
    recipe = f"{one['base']} + {one['delta']}"
    ranges = f"{one['least']:7.3f} {one['typical']:7.3f} {one['most']:8.3f}"
    return f"{one['controller']:38} {recipe:19} {ranges}  {one['outside']:5} of {one['gains']}"


def known(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of a file that was measured with the same settings, by :func:`key`."""
    table = json.loads(path.read_text()) if path.exists() else {}
    alike = all(table.get(name) == value for name, value in settings.items())
    return {key(one["controller"], one["base"], one["delta"]): one for one in table["rows"]} if alike else {}


def key(controller: str, base: str, delta: str) -> str:
    """Name a row."""
    return f"{controller}: {base} + {delta}"


def nets_of(seeds: int, only: str) -> list[dict[str, Any]]:
    """Measure whole networks: residual ones of each kind, and plain ones with the gain for their ReLUs."""
    rows = []
    kinds = [(True, base, delta) for base, delta in RECIPES] + [(False, "none", "full"), (False, "learned", "full")]
    references = {
        (residual, base): nets.independent(residual, 1.0 if base == "none" else 1 + DELTA**2, range(4 * seeds))
        for residual, base, _ in kinds
    }
    for name, make in CONTROLLERS.items():
        for residual, base, delta in kinds if name.startswith(only) else ():
            reference, own = references[residual, base], nets.measure(make, base, delta, residual, range(seeds))
            kind = "residual" if residual else "plain"
            grown = {str(depth): float(f"{math.exp(one):.3g}") for depth, one in own.items()}
            row = {"controller": name, "base": base, "delta": delta, "kind": kind, "growth": grown}
            rows.append({**row, "over independent": nets.ratios(own, reference)})
            print(f"{name:22} {kind:9} {base + ' + ' + delta:19} {rows[-1]['over independent']}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--architectures", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="measure rows of this beginning; the file's serve for the others")
    parser.add_argument("--part", choices=["sites", "nets", "both"], default="both")
    parser.add_argument("--nets-seeds", type=int, default=8, help="networks of which the growth is a mean")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"architectures": options.architectures, "seeds": options.seeds, "low": LOW, "high": HIGH}
    old, rows = known(options.output, settings) if options.only or options.part == "nets" else {}, []
    whole = json.loads(options.output.read_text()).get("nets", []) if options.output.exists() else []
    if options.part != "sites":
        kept = [one for one in whole if not one["controller"].startswith(options.only)]
        whole = [*kept, *nets_of(options.nets_seeds, options.only)]
    print(f"{'controller':38} {'base + delta':19} {'least':>7} {'typical':>7} {'most':>8}  outside [{LOW}, {HIGH}]")
    for one in contenders():
        if not one.name.startswith(options.only) or options.part == "nets":
            rows += [old[name] for name in [key(one.name, one.base, one.delta)] if name in old]
            continue
        rows.append(row(one, options.architectures, options.seeds))
        print(line(rows[-1]), flush=True)
    ours = [one for one in rows if one["ours"]]
    holds = all(one["outside"] == 0 for one in ours)
    table = {**settings, "holds": holds, "rows": rows, "nets seeds": options.nets_seeds, "nets": whole}
    options.output.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{'every' if holds else 'NOT every'} gain of {len(ours)} pairs within [{LOW}, {HIGH}]; {options.output}")
    grown = [one for row in whole if row["kind"] == "residual" for one in row["over independent"].values()]
    alike = all(1 / nets.BAR <= one <= nets.BAR for one in grown)
    print(f"{'every' if alike else 'NOT every'} growth of residual nets within a factor of {nets.BAR}")
    return 0 if holds and alike else 1


if __name__ == "__main__":
    sys.exit(main())
