"""Lines over steps, and dots along an axis, as SVG. Colours are the style sheet's, so that dark pages have theirs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["COLOURS", "Line", "dots", "lines", "ticks"]

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 34
COLOURS = 8
"""So many colours the style sheet has: ``c0`` to ``c7``."""


class Line(NamedTuple):
    """A line to draw.

    Parameters
    ----------
    name
        For who points at it.
    points
        ``(x, y)``; what is no number is left out.
    colour
        Its number; ``None``: grey.
    strong
        Whether it stands out.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int | None = 0
    strong: bool = False


class _Axis(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low or 1.0)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from below a range to above it.

    >>> ticks(0.0, 0.93), ticks(3.0, 3.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [2.0, 2.5, 3.0, 3.5, 4.0])
    """
    if high <= low:
        low, high = low - 1.0, high + 1.0
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(one * unit for one in (1, 2, 2.5, 5, 10) if one * unit >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def lines(drawn: Sequence[Line], across: str, up: str, span: tuple[float, float] | None = None) -> str:
    """Return a plot of lines.

    Parameters
    ----------
    across, up
        Names of the axes.
    span
        Of the values; by default as wide as they are.
    """
    known = [[(x, y) for x, y in one.points if y is not None and math.isfinite(y)] for one in drawn]
    points = [point for several in known for point in several]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    marks_x, marks_y = ticks(min(xs), max(xs)), ticks(*(span or (min(ys), max(ys))))
    x = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y = _Axis(marks_y[0], marks_y[-1], HEIGHT - BOTTOM, TOP)
    parts = [*_across([one for one in marks_x if min(xs) <= one <= max(xs)], x, HEIGHT), *_up(marks_y, y)]
    for one, own in zip(drawn, known, strict=True):
        parts += _line(one, [(x.place(a), y.place(b)) for a, b in own])
    parts.append(
        f'<text class="name" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>'
    )
    return _svg(WIDTH, HEIGHT, f"{up} over {across}", parts)


def _line(one: Line, places: Sequence[tuple[float, float]]) -> Iterator[str]:
    kind = f"line {'grey' if one.colour is None else f'c{one.colour % COLOURS}'}{' strong' if one.strong else ''}"
    title = f"<title>{escape(one.name)}</title>"
    if len(places) == 1:
        yield f'<circle class="{kind}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3">{title}</circle>'
    elif places:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        yield f'<polyline class="{kind}" points="{path}">{title}</polyline>'


def _across(marks: Sequence[float], axis: _Axis, height: float) -> Iterator[str]:
    for one in marks:
        place = axis.place(one)
        yield f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        yield f'<text x="{place:.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">{one:g}</text>'


def _up(marks: Sequence[float], axis: _Axis) -> Iterator[str]:
    for one in marks:
        place = axis.place(one)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{one:g}</text>'


def dots(rows: Sequence[tuple[str, Sequence[float], bool]], across: str) -> str:
    """Return a plot with a row of dots for each name: where several numbers stand, their spread is seen.

    Parameters
    ----------
    rows
        A name, its values, and whether it stands out.
    across
        Name of the axis.
    """
    values = [one for _, several, _ in rows for one in several if math.isfinite(one)]
    if not values:
        return ""
    step, width = 36, WIDTH
    height = TOP + BOTTOM + step * len(rows)
    marks = ticks(min(values), max(values))
    axis = _Axis(marks[0], marks[-1], RIGHT, width - 2 * RIGHT)
    parts = [*_across(marks, axis, height)]
    for number, (words, several, strong) in enumerate(rows):
        place = TOP + step * (number + 0.7)
        parts.append(f'<line class="row" x1="{RIGHT}" x2="{width - 2 * RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{RIGHT}" y="{place - 11:.1f}"{_strong(strong)}>{escape(words)}</text>')
        parts += [_dot(words, one, axis.place(one), place, strong) for one in several if math.isfinite(one)]
    parts.append(f'<text class="name" x="{width / 2}" y="{height - 4}" text-anchor="middle">{escape(across)}</text>')
    return _svg(width, height, across, parts)


def _dot(words: str, value: float, x: float, y: float, strong: bool) -> str:
    kind = "dot strong" if strong else "dot"
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(words)}: {value:.5g}</title></circle>'
    )


def _strong(strong: bool) -> str:
    return ' class="strong"' if strong else ""


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">\n{inside}\n</svg>'
