"""The quickstart's picture: :func:`plot_data` gathers the numbers, :func:`draw` only draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .data import load_shots, normalise
from .tiling import add_noise, denoise_frame, neighbours, to_uint8

SETS = {"unseen_shots": "unseen shots", "unseen_video": "unseen video"}
NETS = {
    "noisy": "noisy",
    "static_twin": "static twin",
    "dynamic": "dynamic",
}
COLOURS = {"noisy": "#bbbbbb", "static_twin": "#7fa6c9", "dynamic": "#d9622b"}
STRIP_SIGMA = 40.0
STRIP = ("noisy", "static_twin", "dynamic", "clean")


class WithoutContext(nn.Module):
    """A network that takes no context, called as one that does."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(frames)


class PlotData(NamedTuple):
    """All that the picture shows."""

    psnr: Mapping[str, Mapping[str, float]]  # test set -> network -> dB
    probabilities: Mapping[str, Mapping[str, float]]  # label -> candidate -> probability
    chosen: Mapping[str, str]  # label -> candidate
    strip: Mapping[str, np.ndarray]  # noisy, static_twin, dynamic, clean -> (H, W), uint8


def plot_data(
    psnr: Mapping[str, Mapping[str, float]],
    probabilities: Mapping[str, Mapping[str, float]],
    chosen: Mapping[str, str],
    networks: Mapping[str, nn.Module],
) -> PlotData:
    """Gather what the picture shows; ``networks`` clean one frame of the unseen video."""
    return PlotData(psnr, probabilities, chosen, strip(networks))


def strip(networks: Mapping[str, nn.Module], sigma: float = STRIP_SIGMA, index: int = 100) -> dict[str, np.ndarray]:
    """Give one frame of the unseen video: noisy, cleaned by each network, and clean."""
    frames = load_shots("unseen_video")[0]
    stack = frames[index - 1 : index + 2]
    noisy = add_noise(stack.numpy(), sigma)
    seen = neighbours(noisy, 1)
    cleaned: dict[str, Tensor] = {name: denoise_frame(net.eval(), seen) for name, net in networks.items()}
    with torch.no_grad():
        shown = {"noisy": noisy[1], **cleaned, "clean": normalise(stack[1])}
    return {name: to_uint8(frame) for name, frame in shown.items()}


def draw(data: PlotData, path: Path) -> None:
    """Draw the picture into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.add_gridspec(2, 1, height_ratios=(1.15, 1))
    upper, lower = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    bars, *choices = upper.subplots(1, 1 + len(data.probabilities), width_ratios=(1.8, *[1] * len(data.probabilities)))
    _draw_bars(bars, data)
    for axes, label in zip(choices, data.probabilities, strict=True):
        _draw_choice(axes, data, label)
    shown = [name for name in STRIP if name in data.strip]
    for axes, name in zip(np.atleast_1d(lower.subplots(1, len(shown))), shown, strict=True):
        axes.imshow(data.strip[name], cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"noisy (sigma {STRIP_SIGMA:g})" if name == "noisy" else name.replace("_", " "), fontsize=10)
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_bars(axes, data: PlotData) -> None:
    nets = [name for name in NETS if name in next(iter(data.psnr.values()))]
    width = 0.8 / len(nets)
    for position, name in enumerate(nets):
        heights = [data.psnr[test][name] for test in data.psnr]
        places = np.arange(len(heights)) + (position - (len(nets) - 1) / 2) * width
        drawn = axes.bar(places, heights, width, label=NETS[name], color=COLOURS[name])
        axes.bar_label(drawn, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(data.psnr)), [SETS.get(test, test) for test in data.psnr])
    axes.set_ylim(bottom=min(min(row.values()) for row in data.psnr.values()) - 2)
    axes.set_ylabel("PSNR, dB")
    axes.set_title("Unseen data", fontsize=10)
    axes.legend(fontsize=7, loc="upper right", ncols=2)
    axes.margins(y=0.25)


def _draw_choice(axes, data: PlotData, label: str) -> None:
    names = list(data.probabilities[label])
    colours = [COLOURS["dynamic"] if name == data.chosen.get(label) else COLOURS["noisy"] for name in names]
    axes.barh(names, [data.probabilities[label][name] for name in names], color=colours)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=8)
    axes.set_title(f"`{label}`: probability", fontsize=10)
