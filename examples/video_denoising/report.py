"""What the search ends with: the found network against static ones, trained from scratch at equal steps alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nni
import torch
from torch import nn

from nni_dynconv import DynamicNetwork, DynamicWeightMutator, export
from nni_dynconv.controllers import ChunkedController
from nni_dynconv.samplers import RandomSampler

from .data import FRAMES
from .networks import FrameStatistics, StaticCnn, StaticTwin, save_twin
from .plotting import draw, plot_data
from .space import DenoisingSpace
from .training import LEARNING_RATE, mean_psnr, multiply_adds, train

TEST_SETS = ("unseen_shots", "unseen_video")


def report(
    mutator: DynamicWeightMutator,
    sample: Mapping[str, str],
    output_dir: str | Path,
    *,
    steps: int = 800,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    samples: int = 512,
    controller: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the found network and its static rivals, measure them on unseen data, save network, twin and picture.

    Parameters
    ----------
    mutator
        The searched one: its probabilities are drawn. No weight of it is used.
    sample
        The architecture that the search found.
    output_dir
        Where everything is written.
    steps, learning_rate, seed
        Of each training; the batches are the same for all.
    samples
        Test patches in each of the two test sets.
    controller
        Settings of the trained network's controller.

    Returns
    -------
    dict
        What ``summary.json`` holds; ``seconds`` are those of this report.
    """
    began, folder = time.monotonic(), Path(output_dir)
    networks = rivals(sample, seed, controller or {})
    train_all(networks, steps, seed, learning_rate)
    psnr = compare(networks, samples)
    save(networks, folder, sample)
    shown = {name: networks[name] for name in ("static_twin", "dynamic")}
    draw(plot_data(psnr, probabilities(mutator), sample, shown), folder / "plot.png")
    summary = {
        "architecture": dict(sample),
        "seconds": round(time.monotonic() - began, 1),
        "experiment_id": nni.get_experiment_id(),
        "seeds": [seed],
        "steps": steps,
        "psnr": psnr,
        "multiply_adds": {name: multiply_adds(net, FRAMES) for name, net in networks.items()},
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()},
    }
    (folder / "report.txt").write_text(report_text(summary))
    return summary


def report_text(summary: Mapping[str, Any]) -> str:
    """Lay the results out for reading."""
    names = {
        "noisy": "noisy input",
        "static_twin": "static twin",
        "static_equal_macs": "static CNN, equal cost",
        "dynamic": "dynamic (searched)",
    }
    lines = ["Found architecture: " + ", ".join(f"{label} = {name}" for label, name in summary["architecture"].items())]
    lines += [f"PSNR in dB, each network trained for {summary['steps']} steps on the same batches:"]
    lines += [f"  {'':<30}{'unseen shots':>14}{'unseen video':>14}{'multiply-adds a tile':>22}"]
    for name, words in names.items():
        values = "".join(f"{summary['psnr'][test][name]:>14.2f}" for test in TEST_SETS)
        cost = summary["multiply_adds"].get(name)
        lines.append(f"  {words:<30}{values}{'' if cost is None else f'{cost:>22,}'}")
    for rival in ("static_twin", "static_equal_macs"):
        gains = (summary["psnr"][test]["dynamic"] - summary["psnr"][test][rival] for test in TEST_SETS)
        words = f"ahead of {names[rival]}"
        lines.append(f"  {words:<30}" + "".join(f"{gain:>+14.2f}" for gain in gains))
    return "\n".join(lines) + "\n"


def rivals(sample: Mapping[str, str], seed: int, controller: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Give the three networks, untrained: what stands longest in training comes first."""
    dynamic = fresh_dynamic(sample, seed, **controller)
    budget = multiply_adds(dynamic, FRAMES)
    return {
        "dynamic": dynamic,
        "static_twin": seeded(lambda: StaticTwin(sample, FRAMES), seed),
        "static_equal_macs": seeded(lambda: equal_cost_cnn(budget), seed),
    }


def fresh_dynamic(sample: Mapping[str, str], seed: int, **controller: Any) -> nn.Module:
    """Give the network of one architecture with an untrained controller: a plain module ``net(frames, context)``."""

    def make() -> nn.Module:
        mutator = DynamicWeightMutator(
            DenoisingSpace(),
            controller=ChunkedController(**controller),
            sampler=RandomSampler(seed=seed),
            context=FrameStatistics(FRAMES),
            base="learned",
        )
        return mutator.freeze(dict(sample))

    return seeded(make, seed)


def equal_cost_cnn(budget: int, frames: int = FRAMES) -> StaticCnn:
    """Give the narrowest static CNN that costs at least ``budget`` multiply-adds a tile."""
    width = 1
    while multiply_adds(net := StaticCnn(frames, width), frames) < budget:
        width += 1
    return net


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a network whose first weights the seed decides; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def train_all(networks: Mapping[str, nn.Module], steps: int, seed: int, learning_rate: float, workers: int = 2) -> None:
    """Train each network on the same batches, ``workers`` at once with one thread each."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            jobs = [pool.submit(train, net, steps, seed, learning_rate) for net in networks.values()]
            for job in jobs:
                job.result()
    finally:
        torch.set_num_threads(threads)


def compare(networks: Mapping[str, nn.Module], samples: int) -> dict[str, dict[str, float]]:
    """Measure the noisy frames and each network on both test sets, in dB."""
    order = ("noisy", "static_twin", "static_equal_macs", "dynamic")
    return {
        test: {name: round(mean_psnr(networks.get(name), test, samples), 3) for name in order} for test in TEST_SETS
    }


def probabilities(mutator: DynamicWeightMutator) -> dict[str, dict[str, float]]:
    """Give the sampler's probability of each candidate: label -> candidate -> probability."""
    from nni_dynconv.samplers import choices_of

    tables = {}
    for label, choice in choices_of(mutator.space).items():
        values = [float(p) for p in mutator.sampler.probabilities(label)]
        tables[label] = {str(name): value for name, value in zip(choice.candidates, values, strict=True)}
    return tables


def save(networks: Mapping[str, nn.Module], folder: Path, sample: Mapping[str, str]) -> None:
    """Write the dynamic network, as :func:`nni_dynconv.load` reads it, and its twin beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    dynamic, twin = networks["dynamic"], networks["static_twin"]
    assert isinstance(dynamic, DynamicNetwork) and isinstance(twin, StaticTwin)
    export.save(dynamic, folder, architecture=dict(sample))
    save_twin(twin, folder)
