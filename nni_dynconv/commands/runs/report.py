"""``nni-dynconv report``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..shared import say
from .arguments import RunFolder

__all__ = ["report"]


def report(
    run: RunFolder,
    trust: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="May be imported, for a network saved by its class.")
    ] = None,
) -> None:
    """Write the page of a run: what won, how sure that is, its cost.

    Every search and training writes it, too:

        nni-dynconv report runs/mine
    """
    from ...reporting import write_report

    written = write_report(run, trust or ())
    for one in written.answers:
        say(f"{one.question} {one.short}")
    say(f"\nWritten: {run / 'report.html'}, and as data {run / 'report.json'}.")
