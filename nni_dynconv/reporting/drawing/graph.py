"""One path through columns of boxes, as SVG: what was chosen stands out, the alternatives are grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

__all__ = ["graph"]

BOX, GAP, LINE, ROW, EDGE = 132, 34, 22, 4, 12
"""Width of a box, room between columns, height of a box, room between boxes, room at the sides."""
LETTERS = 19
"""So many fit into a box."""


def graph(columns: Sequence[tuple[str, Sequence[tuple[str, str, bool]]]], beside: int = 5) -> str:
    """Return the columns, from left to right and then below, with a line through what was chosen.

    Parameters
    ----------
    columns
        A title, and its boxes: a name, a remark, and whether it was chosen.
    beside
        How many columns stand beside one another; further ones stand below.
    """
    parts: list[str] = []
    top, before = 0.0, None
    width = 0.0
    for start in range(0, len(columns), beside):
        several = columns[start : start + beside]
        for place, (title, boxes) in enumerate(several):
            left = place * (BOX + GAP) + EDGE
            width = max(width, left + BOX + EDGE)
            parts += _column(title, boxes, left, top)
            at = next(
                (top + LINE + number * (LINE + ROW) + LINE / 2 for number, one in enumerate(boxes) if one[2]), None
            )
            if at is not None and before is not None:
                parts.insert(0, _link(*before, left, at, top))
            before = None if at is None else (left + BOX, at)
        top += LINE + max(len(boxes) for _, boxes in several) * (LINE + ROW) + 16
    inside = "\n".join(parts)
    return (
        f'<svg class="graph" viewBox="0 0 {width:g} {top:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="The architecture, and what else there was to choose">\n{inside}\n</svg>'
    )


def _column(title: str, boxes: Sequence[tuple[str, str, bool]], left: float, top: float) -> Iterator[str]:
    yield f'<text class="name" x="{left + BOX / 2}" y="{top + 14}" text-anchor="middle">{_cut(title)}</text>'
    for number, (name, remark, chosen) in enumerate(boxes):
        y = top + LINE + number * (LINE + ROW)
        kind = "box chosen" if chosen else "box"
        whole = escape(f"{title}: {name} {remark}")
        yield f'<g class="{kind}"><rect x="{left}" y="{y}" width="{BOX}" height="{LINE}" rx="5"/>'
        yield f'<text x="{left + 8}" y="{y + 15}">{_cut(name, LETTERS - len(remark))}</text>'
        yield f'<text x="{left + BOX - 8}" y="{y + 15}" text-anchor="end">{escape(remark)}</text>'
        yield f"<title>{whole}</title></g>"


def _cut(text: str, letters: int = LETTERS) -> str:
    return escape(text if len(text) <= letters else f"{text[: letters - 1]}…")


def _link(x: float, y: float, to_x: float, to_y: float, top: float) -> str:
    if to_x < x:  # the next row
        return f'<path class="link" d="M{x} {y} h{EDGE / 2} V{top - 4} H{EDGE / 2} V{to_y} H{to_x}"/>'
    middle = (x + to_x) / 2
    return f'<path class="link" d="M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>'
