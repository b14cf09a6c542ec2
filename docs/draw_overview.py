"""Draw the README's picture, ``docs/img/overview.png``: input, plan, weights, forward. python docs/draw_overview.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PICTURE = Path(__file__).with_name("img") / "overview.png"
INK, PALE, GENERATED, CHOICE = "#2b2b2b", "#f2f2f2", "#d9622b", "#3f6f9f"
PLAN = (("stem", "conv7", 7), ("body", "conv5", 5), ("tail", "conv3", 3), ("head", "", 3))
CANDIDATES = {
    "stem": ("conv5", "conv7", "conv9", "dilated5"),
    "body": ("conv3", "conv5", "separable5", "skip"),
    "tail": ("conv3", "dilated3", "static conv", "skip"),
}
SAMPLES = 3


def draw(path: Path = PICTURE) -> None:
    """Draw everything and write the file."""
    figure = plt.figure(figsize=(11.6, 5.3), dpi=160)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 116), ylim=(0, 53))
    axes.axis("off")
    _top_row(axes)
    _bottom_row(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def _top_row(axes: Axes) -> None:
    _box(axes, 3, 34, 20, 13, CHOICE)
    _title(axes, 13, 48.4, "sampler", CHOICE)
    axes.text(13, 40.5, "chooses a candidate\nfor each label", ha="center", va="center", fontsize=9.5, color=INK)

    _box(axes, 33, 31, 24, 16, CHOICE)
    _title(axes, 45, 48.4, "plan", CHOICE)
    for row, (label, candidate, size) in enumerate(PLAN):
        y = 44.3 - 3.5 * row
        axes.text(34.6, y, f"{label}/{candidate}" if candidate else label, va="center", fontsize=9.5, color=INK)
        axes.text(55.4, y, f"{size}x{size}", ha="right", va="center", fontsize=9.5, color=CHOICE)

    _box(axes, 67, 34, 19, 13, GENERATED)
    _title(axes, 76.5, 48.4, "controller", GENERATED)
    axes.text(76.5, 40.5, "one small network makes\njust these weights", ha="center", va="center", fontsize=9.5)

    _title(axes, 103, 48.4, "weights", GENERATED)
    axes.text(103, 29.2, "a set for each sample", ha="center", va="center", fontsize=9.5, color=GENERATED)
    _weights(axes)
    for start, end in ((23.6, 32.4), (57.6, 66.4), (86.6, 92.6)):
        _arrow(axes, (start, 40.5), (end, 40.5))


def _weights(axes: Axes) -> None:
    generator = np.random.default_rng(3)
    for row, (_, _, size) in enumerate(PLAN[:3]):
        for column in range(SAMPLES):
            blur = np.hanning(size + 2)[1:-1]
            values = np.outer(blur, blur) + (0.15 + 0.2 * column) * generator.standard_normal((size, size))
            half = 0.36 * size
            x, y = 97 + 6 * column, (44.2, 38.4, 33.6)[row]
            axes.imshow(values, cmap="PuOr_r", extent=(x - half, x + half, y - half, y + half), aspect="auto", zorder=3)


def _bottom_row(axes: Axes) -> None:
    axes.set(xlim=(0, 116), ylim=(0, 53))
    _title(axes, 8.5, 19.6, "input x", INK)
    _frame(axes, 8.5, 13.2, noise=0.25)
    _title(axes, 107.5, 19.6, "output y", INK)
    _frame(axes, 107.5, 13.2, noise=0.0)

    _box(axes, 22, 3, 74, 19.4, INK, fill="white")
    axes.text(58.5, 4.2, "forward: only the chosen ops run", ha="center", va="bottom", fontsize=9.5, color=INK)
    for column, (label, names) in enumerate(CANDIDATES.items()):
        _choice(axes, 24.2 + 18.4 * column, label, names, chosen=PLAN[column][1])
    _chip(axes, 79.6, 12.1, "head", filled=True)
    for start in (40.2, 58.6, 77.0):
        _arrow(axes, (start, 12.9), (start + 2.2, 12.9), small=True)
    _arrow(axes, (14.6, 12.9), (21.6, 12.9))
    _arrow(axes, (96.4, 12.9), (101.4, 12.9))

    _arrow(axes, (91, 34.5), (86, 23.2), GENERATED, bend=0.0)
    axes.text(90, 25.6, "pulled when the op runs", ha="left", va="center", fontsize=9.5, color=GENERATED)
    _arrow(axes, (8.5, 22.2), (76.5, 33.4), GENERATED, elbow=27.2)
    axes.text(
        22, 28.3, "context: other frames, a vector, a sequence, x itself, or nothing", fontsize=9.5, color=GENERATED
    )


def _choice(axes: Axes, x: float, label: str, names: tuple[str, ...], chosen: str) -> None:
    axes.text(x + 7.4, 20.2, label, ha="center", va="center", fontsize=9, color=CHOICE)
    for row, name in enumerate(names):
        _chip(axes, x, 16.0 - 2.75 * row, name, filled=name == chosen)


def _chip(axes: Axes, x: float, y: float, text: str, filled: bool) -> None:
    fill, edge = (GENERATED, GENERATED) if filled else ("white", "#c8c8c8")
    _box(axes, x, y, 14.8, 2.1, edge, fill, rounding=0.4)
    axes.text(x + 7.4, y + 0.95, text, ha="center", va="center", fontsize=8.5, color="white" if filled else "#8a8a8a")


def _frame(axes: Axes, x: float, y: float, noise: float) -> None:
    rows, columns = np.mgrid[0:40, 0:40] / 40
    ball = (columns - 0.62) ** 2 + (rows - 0.3) ** 2 < 0.03
    clean = 0.55 + 0.25 * np.sin(7 * columns + 2 * rows) * (rows > 0.45) + 0.35 * ball
    noisy = clean + noise * np.random.default_rng(0).standard_normal(clean.shape)
    axes.imshow(
        noisy, cmap="gray", vmin=0, vmax=1, extent=(x - 5.6, x + 5.6, y - 5.6, y + 5.6), aspect="auto", zorder=3
    )


def _title(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.text(x, y, text, ha="center", va="bottom", fontsize=12, fontweight="bold", color=colour)


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, edge: str, fill: str = PALE, rounding: float = 0.8
) -> None:
    style = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, edgecolor=edge, facecolor=fill, linewidth=1.3))


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = INK,
    small: bool = False,
    bend: float = 0.0,
    elbow: float | None = None,
) -> None:
    scale, width = (9, 1.2) if small else (14, 1.6)
    if elbow is not None:  # up, along at this height, and up again
        axes.plot([start[0], start[0], end[0]], [start[1], elbow, elbow], color=colour, linewidth=width)
        start = (end[0], elbow)
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=scale,
            linewidth=width,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


if __name__ == "__main__":
    draw()
