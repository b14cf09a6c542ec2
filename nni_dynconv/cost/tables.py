"""Tables of text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ..settings import Recipe

__all__ = ["milliseconds", "printed", "told"]

WIDTH = 200


def milliseconds(seconds: float) -> str:
    """Return seconds as people read those of a step."""
    return f"{1e3 * seconds:.2f} ms"


def told(recipe: Recipe) -> tuple[str, str]:
    """Return base and delta of a recipe as cells.

    Examples
    --------
    >>> told(Recipe("learned", "low_rank", 4))
    ('learned', 'low_rank 4')
    """
    return recipe.base, f"low_rank {recipe.rank}" if recipe.delta == "low_rank" else recipe.delta


def printed(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], right: int, last: str | None = None
) -> str:
    """Return a table.

    Parameters
    ----------
    right
        How many columns are numbers, behind those of words.
    last
        Head of a column of sentences behind them.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    for place, head in enumerate(heads):
        is_number = place >= len(heads) - right
        table.add_column(head, no_wrap=True, justify="right" if is_number else "left")
    if last is not None:
        table.add_column(last, max_width=60)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())
