"""The picture of the denoising benchmark: :func:`points` gathers what is shown, :func:`draw` only draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.quality.denoising_contenders import DYNAMIC, DYNAMICS
from benchmarks.quality.denoising_names import NAMES, SETS

__all__ = ["Point", "draw", "points", "random_points"]

COLOURS = dict(
    zip(NAMES, ("#d9622b", "#e0a030", "#9ec3e6", "#3f6f9f", "#5a9e5a", "#8e6bb0", "#aaaaaa", "#444444"), strict=True)
)
MARKERS = dict(zip(NAMES, "oosD^vPX", strict=True))


class Point(NamedTuple):
    """One contender at one budget on one test set."""

    millions: float  # of multiply-adds
    psnr: float  # dB
    std: float  # between seeds


def points(summary: Mapping[str, Any], test: str) -> dict[str, list[Point]]:
    """Give the points of each contender on one test set, cheapest first; a rival of one width stands at two budgets."""
    curves: dict[str, set[Point]] = {name: set() for name in NAMES}
    for row in summary["rows"]:
        curves[row["contender"]].add(Point(row["multiply_adds"] / 1e6, *row["psnr"][test].values()))
    return {name: sorted(curve) for name, curve in curves.items()}


def random_points(summary: Mapping[str, Any], test: str) -> list[Point]:
    """Give the points of the architectures that were drawn."""
    found = summary["random"]
    return [Point(found["sizes"][name] / 1e6, *one[test].values()) for name, one in found["drawn"].items()]


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the picture into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2, width_ratios=(2, 1))
    for (front, among), test in zip(grid, SETS, strict=True):
        _draw_front(front, points(summary, test), test)
        _draw_random(among, summary, test)
    grid[0][0].legend(fontsize=8, frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_front(axes: Any, curves: Mapping[str, Sequence[Point]], test: str) -> None:
    for name, curve in curves.items():
        own = name in DYNAMICS
        axes.errorbar(
            [one.millions for one in curve],
            [one.psnr for one in curve],
            [one.std for one in curve],
            label=NAMES[name],
            color=COLOURS[name],
            marker=MARKERS[name],
            linewidth=2.2 if own else 1.2,
            zorder=3 if own else 2,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="multiply-adds of a 64x64 tile, controller included (M)", ylabel="PSNR (dB)")
    axes.set_title(f"{SETS[test].capitalize()}: mean and deviation over seeds", fontsize=10)
    axes.grid(alpha=0.3, which="both")


def _draw_random(axes: Any, summary: Mapping[str, Any], test: str) -> None:
    found, drawn = summary["random"], random_points(summary, test)
    place = found["sets"][test]
    (own,) = (row for row in summary["rows"] if row["budget"] == found["budget"] and row["contender"] == DYNAMIC)
    xs, ys, stds = zip(*drawn, strict=True)
    axes.errorbar(xs, ys, stds, fmt="o", color="#999999", capsize=2, label=f"{len(drawn)} random architectures")
    axes.axhline(place["median"], color="#999999", linestyle="--", label="their median")
    searched = [own["multiply_adds"] / 1e6], [place["searched"]], [own["psnr"][test]["std"]]
    axes.errorbar(*searched, fmt="o", color=COLOURS[DYNAMIC], capsize=2, label="searched")
    axes.set(xlabel="multiply-adds (M)", ylabel="PSNR (dB)")
    axes.set_title(f"{SETS[test].capitalize()}: dynamic, width {found['budget']}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
