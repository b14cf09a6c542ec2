"""Draw the wings of the package and which imports which, out of the imports themselves: ``python docs/draw_wings.py``.

An arrow that follows from others is left out: who imports ``generation`` may import what ``generation`` imports.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nni_dynconv"
PICTURE = ROOT / "docs" / "img" / "wings.svg"
EXCEPTIONS = {("generation", "cost"), ("supernet", "cost"), ("supernet", "diagnosis"), ("supernet", "search")}
"""Conveniences such as ``mutator.strategy()`` import inside the method; ``import-linter`` knows no more of them."""
HALF, BOX, INK, PAPER = 0.16, "#e8eef6", "#20262e", "#ffffff"  # half the height of a box, colours


def wings() -> list[str]:
    """Return the names of all wings."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imports() -> set[tuple[str, str]]:
    """Return all pairs of wings of which the first imports the second."""
    found = {(path.relative_to(PACKAGE).parts[0], wing) for path, wing in _imported()}
    return {(one, other) for one, other in found if one != other} - EXCEPTIONS


def _imported() -> Iterator[tuple[Path, str]]:
    known = set(wings())
    for path in PACKAGE.glob("*/**/*.py"):
        up = len(path.relative_to(PACKAGE).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == up and (node.module or "").split(".")[0] in known:
                yield path, str(node.module).split(".")[0]


def arrows() -> list[tuple[str, str]]:
    """Return the pairs that are drawn: those that do not follow from others."""
    graph = nx.DiGraph(imports())
    graph.add_nodes_from(wings())
    return sorted(nx.transitive_reduction(graph).edges)


def floors() -> list[list[str]]:
    """Return the wings floor by floor, from the ground up: each stands just above the highest that it imports."""
    graph = nx.DiGraph([(other, one) for one, other in imports()])
    graph.add_nodes_from(wings())
    return [sorted(floor) for floor in nx.topological_generations(graph)]


def draw(path: Path) -> None:
    """Draw the picture; an SVG keeps the arrows in its description, by which a test sees that it is not stale."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = _places()
    with rc_context({"svg.hashsalt": "wings"}):
        figure = Figure(figsize=(8, 10), layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for one, other in arrows():
            (x, y), (u, v) = places[one], places[other]
            shape = {"arrowstyle": "-|>", "color": "#7b8794", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
            shape["connectionstyle"] = (
                f"arc3,rad={0.0 if y - v < 1.5 or u < x else -0.35}"  # around what stands between
            )
            axes.annotate("", (u, v + HALF), (x, y - HALF), arrowprops=shape, zorder=1)
        for name, (x, y) in places.items():
            box = {"boxstyle": "round,pad=0.45", "facecolor": BOX, "edgecolor": INK, "linewidth": 0.8}
            axes.text(x, y, name, ha="center", va="center", fontsize=11, color=INK, bbox=box, zorder=3)
        axes.set_axis_off()
        axes.set_xlim(-4.2, 4.2)
        axes.set_ylim(-0.7, len(floors()) - 0.3)
        kept = {"metadata": {"Date": None, "Description": json.dumps(arrows())}} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=110, **kept)


def _places() -> dict[str, tuple[float, float]]:
    """Put each wing over what it imports, so that few arrows cross."""
    places: dict[str, tuple[float, float]] = {}
    for y, floor in enumerate(floors()):
        below = {name: [places[other][0] for one, other in arrows() if one == name] for name in floor}
        row = sorted(floor, key=lambda name: sum(below[name]) / max(len(below[name]), 1))
        for i, name in enumerate(row):
            shift = 0.0 if len(row) > 1 else 0.7 * (-1) ** y  # so that arrows past a floor are seen
            places[name] = ((i - (len(row) - 1) / 2) * 2.2 + shift, float(y))
    return places


if __name__ == "__main__":
    draw(PICTURE)
