"""What the quickstart's search ends with, beside the package's own table: a picture, and a summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nni

import nni_dynconv
from nni_dynconv import DynamicWeightMutator
from nni_dynconv.reporting import add_slides

from .data import TEST_SETS, psnr, unseen_batches
from .plotting import STRIP, WithoutContext, draw, plot_data, strip

NAMES = {"static twin": "static_twin", "found": "dynamic"}
"""Entries of the table of baselines that the picture shows."""
SIGMAS = (10.0, 20.0, 30.0, 40.0, 50.0)
"""How noisy the frames of the page's slider are."""


def report(mutator: DynamicWeightMutator, sample: Mapping[str, str], output_dir: str | Path) -> dict[str, Any]:
    """Draw what was found beside its static twin, out of what the run has written, and return what it says of itself.

    Parameters
    ----------
    mutator
        The searched one: its probabilities are drawn.
    sample
        The architecture that the search found.
    output_dir
        The run's folder.

    Returns
    -------
    dict
        What ``summary.json`` holds besides.
    """
    folder = Path(output_dir)
    if not (folder / "baselines.json").is_file():  # no time was left for them
        return {"experiment_id": nni.get_experiment_id()}
    table = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    measured = {name: noisy(name) for name in TEST_SETS}
    for entry in table["entries"]:
        for test in TEST_SETS if entry["kind"] in NAMES else ():
            measured[test][NAMES[entry["kind"]]] = round(entry["metrics"][f"test_psnr/{test}"], 3)
    networks = {
        "static_twin": WithoutContext(nni_dynconv.load(folder / "static_twin")),
        "dynamic": nni_dynconv.load(folder),
    }
    show_noise(networks, folder)
    draw(plot_data(measured, probabilities(mutator), sample, networks), folder / "plot.png")
    return {"experiment_id": nni.get_experiment_id(), "psnr": measured, "worth": table["worth"]}


def show_noise(networks: Mapping[str, Any], folder: Path) -> None:
    """Add a frame of the unseen video to the run's page, before and after, with a slider over the noise."""
    strips = [strip(networks, sigma) for sigma in SIGMAS]
    captions = [f"noise of standard deviation {sigma:g}, of 255" for sigma in SIGMAS]
    images = {name.replace("_", " "): [one[name] for one in strips] for name in STRIP}
    add_slides(folder, "A frame of the unseen video, before and after", captions, images)


def noisy(test: str) -> dict[str, float]:
    """Give the PSNR in dB of a test set's noisy frames."""
    batches = unseen_batches(test)
    values = [psnr(x[:, x.shape[1] // 2, None], y).mean() for (x, _), y in (batches[at] for at in range(len(batches)))]
    return {"noisy": round(float(sum(values)) / len(values), 3)}


def probabilities(mutator: DynamicWeightMutator) -> dict[str, dict[str, float]]:
    """Give the sampler's probability of each candidate: label -> candidate -> probability."""
    return mutator.status()["probabilities"]
