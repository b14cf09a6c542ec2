"""Try every space of NNI's hub, lifted, and write the table in ``docs/hub.md``: ``python docs/make_hub_table.py``."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.mutable.exception import SampleValidationError
from nni.nas.hub import pytorch as hub
from nni.nas.nn.pytorch import ModelSpace
from numpy.random import RandomState
from torch import nn

from nni_dynconv import DynamicWeightMutator, RandomSampler
from nni_dynconv.errors import SpaceError
from nni_dynconv.lifting import Kept, Lifted, lift

ARCHITECTURES = 10
OUTPUT = Path(__file__).with_name("hub.md")


class Case(NamedTuple):
    """A space of the hub at a small size.

    Parameters
    ----------
    make
        Of the hub.
    arguments
        That make it small.
    size
        Height and width of the input.
    where
        What is lifted; the default where ``None``.
    """

    make: Callable[..., ModelSpace]
    arguments: dict[str, Any]
    size: int = 16
    where: Any = None


SMALL: dict[str, Any] = {"width": 4, "num_cells": 3, "dataset": "cifar"}
CASES = {
    "NASNet": Case(hub.NASNet, SMALL),
    "ENAS": Case(hub.ENAS, SMALL),
    "AmoebaNet": Case(hub.AmoebaNet, SMALL),
    "PNAS": Case(hub.PNAS, SMALL),
    "DARTS": Case(hub.DARTS, SMALL),
    "DARTS, width and depth chosen": Case(hub.DARTS, {**SMALL, "width": (4, 8), "num_cells": (3, 6)}),
    "NDS": Case(hub.NDS, {**SMALL, "op_candidates": ["conv_3x3", "dil_conv_5x5", "skip_connect"]}),
    "MobileNetV3Space": Case(
        hub.MobileNetV3Space,
        {
            "num_labels": 10,
            "base_widths": (8,) * 9,
            "width_multipliers": (0.5, 1.0),
            "expand_ratios": (1.0, 2.0),
            "depth_range": (1, 2),
        },
        32,
    ),
    "ProxylessNAS": Case(hub.ProxylessNAS, {"num_labels": 10, "base_widths": (8,) * 9}, 32),
    "ShuffleNetSpace": Case(hub.ShuffleNetSpace, {"num_labels": 10}, 32),
    "ShuffleNetSpace, channels chosen": Case(hub.ShuffleNetSpace, {"num_labels": 10, "channel_search": True}, 32),
    "NasBench101": Case(hub.NasBench101, {"stem_out_channels": 8, "num_modules_per_stack": 1}),
    "NasBench201": Case(hub.NasBench201, {"stem_out_channels": 4, "num_modules_per_stack": 1}),
    "AutoFormer": Case(
        hub.AutoFormer,
        {
            "search_embed_dim": (32, 48),
            "search_mlp_ratio": (1.0, 2.0),
            "search_num_heads": (1, 2),
            "search_depth": (1, 2),
            "img_size": 32,
            "num_labels": 10,
        },
        32,
        nn.Module,
    ),
}


class Row(NamedTuple):
    """What was seen of a case."""

    lifted: int
    kept: list[Kept]
    labels: int
    refused: str
    """Why no supernet was made of it; empty where one was."""
    values: list[int]
    """Values that the controller makes for each architecture."""


def try_case(case: Case, architectures: int = ARCHITECTURES) -> Row:
    """Lift a space and run random architectures of it: forward, backward, freeze, and the frozen one again.

    As one supernet with one controller, where that can be; each architecture with a controller of its own, else.

    Raises
    ------
    AssertionError
        No base got a gradient, or a frozen network gives another output.
    """
    torch.manual_seed(0)
    space = case.make(**case.arguments)
    labels = len(space.simplify())
    lifted = lift(space, case.where)
    row = Row(len(lifted.changes), lifted.kept, labels, "", [])
    try:
        mutator = lifted.mutator(sampler=RandomSampler(seed=0))
    except SpaceError as error:
        again = lift(case.make(**case.arguments), case.where)
        for number in range(architectures):
            row.values.append(run(draw(again, seed=number).mutator(), case))
        return row._replace(refused=str(error))
    for _ in range(architectures):
        row.values.append(run(mutator, case))
    return row


def draw(lifted: Lifted, seed: int) -> Lifted:
    """Draw an architecture as NNI does: again, where it breaks a constraint of the space."""
    generator = RandomState(seed)
    for _ in range(1000):
        sample: dict[str, Any] = {}
        try:
            lifted.space.random(sample, generator)
        except SampleValidationError:
            continue
        return lifted.freeze(sample)
    raise RuntimeError(f"No architecture of {type(lifted.space).__name__} keeps its constraints.")


def run(mutator: DynamicWeightMutator, case: Case) -> int:
    """Run one architecture and return how many values the controller made for it."""
    x = torch.randn(2, 3, case.size, case.size)
    sample = mutator.train().reset()
    mutator.zero_grad()
    mutator(x).square().mean().backward()
    bases = mutator.source.bases
    plan = mutator.plan()  # may have an op whose output the architecture does not use: not each base gets a gradient
    assert not plan or any(one.grad is not None for one in bases.parameters()), "no base got a gradient"
    network = mutator.eval().freeze(sample)
    torch.testing.assert_close(network(x), mutator(x))
    return plan.num_generated


def describe(name: str, case: Case, row: Row) -> str:
    """Return a line of the table."""
    how = "each architecture" if row.refused else "supernet"
    made = f"{min(row.values):,} to {max(row.values):,}"
    return (
        f"| {name} | {row.labels} | {row.lifted} of {row.lifted + len(row.kept)} | {how} | {len(row.values)} | {made} |"
    )


HEAD = """# NNI's hub, lifted

Every space of `nni.nas.hub.pytorch`, unchanged, through `nni_dynconv.lift`. `python docs/make_hub_table.py` makes this
page; sizes are small, so that it takes minutes on one core.

```python
# first: NNI's hub alone imports NNI in an order that breaks it
from nni_dynconv import RandomSampler, lift
from nni.nas.hub.pytorch import NasBench201
import torch

lifted = lift(NasBench201(stem_out_channels=4, num_modules_per_stack=1))
print(lifted)  # what was lifted, what was not, and why
mutator = lifted.mutator(sampler=RandomSampler())
sample = mutator.reset()
y = mutator(torch.zeros(2, 3, 16, 16))  # starts out with the weights of the original
network = mutator.freeze(sample)
```

Of each space, random architectures ran forward and backward, were frozen, and gave the same output frozen.

- *supernet*: one mutator and one controller for the whole space, as above. Cells with loose ends (NASNet, ENAS,
  AmoebaNet) concatenate all their nodes in a supernet, and so do the networks frozen from it: NNI's supernets do too.
- *each architecture*: no supernet covers the space. Its architectures are drawn as NNI's multi-trial strategies draw
  them, and each gets a controller of its own: `lifted.freeze(sample).mutator()`.

| space | labels | modules lifted | how | architectures run | values made for one |
| --- | --- | --- | --- | --- | --- |
"""


WHY = {
    "DARTS, width and depth chosen": "A stage's first cell gives another shape than the others. NNI aligns them in its "
    "supernet by a transformation (`NDSStagePathSampling`) that no network of this space has, and its `freeze` builds "
    "networks anew: what such a supernet learned could not be carried into one.",
    "NasBench101": "NNI has no supernet of it either (`NasBench101Cell.forward` raises). The output's channels are "
    "divided among the vertices that lead to it, so that the channels of every vertex, and the sizes of its operator's "
    "weights, depend on the whole graph; vertices that lead nowhere are cut away.",
}


CHOICE = """By default convolutions that the search decides about are lifted, and nothing else is chosen: those in
candidates of a `LayerChoice`, and those with `nni.choice` arguments. Of AutoFormer, which has one
convolution, every module was chosen. Chosen, and still not lifted:
"""


def write(rows: dict[str, Row], output: Path) -> None:
    """Write the page."""
    lines = [describe(name, CASES[name], row) for name, row in rows.items()]
    sizes = [f"- {name}: `{_call(CASES[name])}`, images of {CASES[name].size}x{CASES[name].size}" for name in rows]
    reasons = [f"- {name}: {row.refused} {WHY[name]}" for name, row in rows.items() if row.refused]
    kept = [f"- {name}: {_reasons(row)}" for name, row in rows.items() if _reasons(row)]
    parts = [
        HEAD + "\n".join(lines),
        "## What is not lifted\n\n" + CHOICE + "\n" + "\n".join(kept),
        "## Why not as a supernet\n\n" + "\n".join(reasons),
        "## Sizes\n\n" + "\n".join(sizes),
    ]
    output.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _reasons(row: Row) -> str:
    found = {(type(one.module).__name__, one.reason) for one in row.kept if one.reason != "not chosen"}
    return "; ".join(f"`{kind}`: {reason}" for kind, reason in sorted(found))


def _call(case: Case) -> str:
    return f"{case.make.__name__}({', '.join(f'{name}={value!r}' for name, value in case.arguments.items())})"


def main() -> None:
    """Try all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="print these and write nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = {}
    for name in options.only or CASES:
        start = time.monotonic()
        rows[name] = try_case(CASES[name])
        print(f"{describe(name, CASES[name], rows[name])} {time.monotonic() - start:.0f} s", flush=True)
    if not options.only:
        write(rows, options.output)


if __name__ == "__main__":
    main()
