"""A page that grows: escaped text, tables, figures, sliders. What stands in them is not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .answers import number

__all__ = ["Page", "text"]


def text(words: str) -> str:
    """Return words as HTML; what stands in backticks is code.

    >>> text("a `b<c`")
    'a <code>b&lt;c</code>'
    """
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words))


class Page:
    """Parts of a page, one below the other, and the pictures that its sliders show."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.pictures: dict[str, Any] = {}

    def __str__(self) -> str:
        return "\n".join(self.parts)

    def add(self, html: str) -> None:
        """Add what is HTML already."""
        self.parts.append(html)

    def section(self, name: str, title: str, *words: str) -> None:
        """Begin a section, with a few sentences."""
        self.add(f'<h2 id="{name}">{text(title)}</h2>')
        for one in words:
            self.add(f"<p>{text(one)}</p>")

    def tiles(self, several: Mapping[str, str]) -> None:
        """Add numbers that stand alone, by what they are; each has digits."""
        inside = "".join(
            f'<div class="tile"><b data-number>{escape(value)}</b><span class="soft">{text(name)}</span></div>'
            for name, value in several.items()
        )
        self.add(f'<div class="tiles">{inside}</div>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]], strong: Sequence[bool] = ()) -> None:
        """Add a table; numbers stand on the right, and one that is not there is ``-``."""
        titles = "".join(f"<th{_right(rows, column)}>{text(one)}</th>" for column, one in enumerate(head))
        lines = []
        for place, row in enumerate(rows):
            mark = ' class="strong"' if place < len(strong) and strong[place] else ""
            lines.append(f"<tr{mark}>{''.join(map(_cell, row))}</tr>")
        inside = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
        self.add(f'<div class="scroll"><table>{inside}</table></div>')

    def figure(self, svg: str, caption: str, kind: str = "", legend: Sequence[tuple[str, int]] = ()) -> None:
        """Add a drawing; an empty one is left out.

        Parameters
        ----------
        legend
            Names of its lines, and the numbers of their colours.
        """
        if svg:
            marks = "".join(f'<span><i class="c{colour}"></i>{escape(name)}</span>' for name, colour in legend)
            below = f'<div class="legend">{marks}</div>' if marks else ""
            self.add(f'<figure class="{kind}">{svg}<figcaption>{text(caption)}</figcaption>{below}</figure>')

    def slider(self, name: str, captions: Sequence[str], images: Mapping[str, Sequence[str]]) -> None:
        """Add a slider; the images that it moves name it."""
        self.pictures[name] = {"captions": list(captions), "images": {key: list(one) for key, one in images.items()}}
        hidden, first = " hidden" if len(captions) < 2 else "", escape(captions[0])
        self.add(
            f'<div class="slide"><input type="range" min="0" max="{len(captions) - 1}" value="0" data-slider="{name}" '
            f'aria-label="{first}"{hidden}><span class="soft" id="{name}-told">{first}</span></div>'
        )

    def image(self, slider: str, name: str, address: str, caption: str, below: str = "") -> str:
        """Return an image that a slider moves."""
        return (
            f'<figure><h3>{text(caption)}</h3><img src="{address}" alt="{escape(name)}" data-slider="{slider}" '
            f'data-picture="{escape(name)}"><figcaption>{below}</figcaption></figure>'
        )


def _right(rows: Sequence[Sequence[Any]], column: int) -> str:
    values = [row[column] for row in rows]
    return ' class="n"' if values and all(one is None or isinstance(one, (int, float)) for one in values) else ""


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="n soft">-</td>'
    if isinstance(value, (int, float)):
        return f'<td class="n" data-number>{number(value)}</td>'
    return f"<td>{text(str(value))}</td>"
