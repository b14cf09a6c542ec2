"""Peak memory of a training step of B samples against the number D of distinct contexts among them.

    python benchmarks/memory.py

writes ``benchmarks/memory.json`` and draws ``docs/img/memory.png``. Two ways to say the same: ``index=``, which makes
D sets of weights, and one context a sample, which makes B. The peak is exact, and the same in each run: it is what
torch's profiler saw allocated on the CPU at one time, from the start of the forward to the end of the backward.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import ModelSpace
from timing import machine
from torch import Tensor, nn

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.ops import DynamicConv2d

ROOT = Path(__file__).resolve().parents[1]
BATCH, CHANNELS, SIZE, LAYERS, CONTEXT = 256, 16, 8, 4, 4
DISTINCT = (1, 2, 8, 32, 128, 256)
MB = 1e6


class Network(ModelSpace):
    """Dense convolutions, whose weights outweigh their activations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(DynamicConv2d(CHANNELS, CHANNELS, 5, padding=2, bias=False), nn.ReLU())
                for _ in range(LAYERS)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Peak(NamedTuple):
    """One row of the table, in MB."""

    contexts: int
    weights: float
    by_index: float
    one_a_sample: float


def measure(mutator: DynamicWeightMutator, contexts: int) -> Peak:
    """Measure both ways of a step with so many contexts, dealt out at random."""
    generator = torch.Generator().manual_seed(contexts)
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE, generator=generator)
    context = torch.randn(contexts, CONTEXT, generator=generator)
    index = (torch.arange(BATCH) % contexts)[torch.randperm(BATCH, generator=generator)]
    rows = context[index]
    weights = 4 * contexts * mutator.plan({}).num_generated / MB
    return Peak(
        contexts,
        weights,
        peak(mutator, x, context=context, index=index),
        peak(mutator, x, context=rows),
    )


def peak(mutator: DynamicWeightMutator, x: Tensor, **contexts: Tensor) -> float:
    """Return the MB that a forward and a backward have allocated at most at one time."""
    mutator(x, **contexts).square().mean().backward()  # gradients are there from now on
    mutator.zero_grad(set_to_none=False)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        mutator(x, **contexts).square().mean().backward()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    total = most = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        total += change
        most = max(most, total)
    return most / MB


def table(peaks: list[Peak]) -> str:
    """Write the peaks as text."""
    lines = [f"Peak MB of a step, B = {BATCH}:", "contexts  weights  D sets  B sets"]
    lines += [f"{p.contexts:8}  {p.weights:7.1f}  {p.by_index:6.1f}  {p.one_a_sample:6.1f}" for p in peaks]
    return "\n".join(lines)


def draw(peaks: list[Peak], path: Path) -> None:
    """Draw the peaks against the number of contexts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    contexts = [p.contexts for p in peaks]
    axes.plot(contexts, [p.one_a_sample for p in peaks], "s--", color="0.6", label="one context a sample: B sets")
    axes.plot(contexts, [p.by_index for p in peaks], "o-", color="tab:blue", label="`index=`: D sets")
    axes.plot(contexts, [p.weights for p in peaks], ":", color="tab:orange", label="the D sets themselves")
    axes.set(xscale="log", yscale="log", xlabel="distinct contexts D", ylabel="peak memory of a step (MB)")
    axes.set_title(f"A training step of B = {BATCH} samples", fontsize=11)
    axes.set_xticks(contexts, [str(one) for one in contexts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "memory.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "img" / "memory.png")
    options = parser.parse_args()
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Network(), sampler=RandomSampler(0), context=VectorContext(CONTEXT, dim=16))
    peaks = [measure(mutator, contexts) for contexts in DISTINCT]
    print(table(peaks))
    settings: dict[str, Any] = {"batch": BATCH, "channels": CHANNELS, "size": SIZE, "layers": LAYERS}
    results = {"machine": machine(), "settings": settings, "unit": "MB", "peaks": [p._asdict() for p in peaks]}
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(peaks, options.figure)


if __name__ == "__main__":
    main()
