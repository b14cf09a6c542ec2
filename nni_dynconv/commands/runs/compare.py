"""``nni-dynconv compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..shared import Json, aside, say, write_json

__all__ = ["compare"]


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.", resolve_path=True)],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page, too.", resolve_path=True)] = None,
    json: Json = None,
) -> None:
    """Put runs beside one another, for the task of the first.

    Those that are unfinished, or of another task, are told and not ranked:

        nni-dynconv compare runs/mine runs/other
        nni-dynconv compare runs/mine runs/other --output runs/compared.html
    """
    from ...files import write_atomically
    from ...reporting import compare_runs

    with aside(json):
        found = compare_runs(runs)
        say(str(found))
        if output is not None:
            write_atomically(output, found.page().encode())
            say(f"Written: {output}")
    write_json(found.to_json(), json)
