"""``nni-dynconv rank``; what it finds out is in ``ranking.py``."""

from __future__ import annotations

from json import loads as json_of
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .shared import Config, Json, aside, enter, quiet, say, write_json

__all__ = ["rank"]


def rank(
    config: Config,
    supernet: Annotated[
        Path,
        typer.Argument(
            metavar="SUPERNET", help="Folder of a run, or of a supernet such as a `checkpoint`.", resolve_path=True
        ),
    ],
    architectures: Annotated[int, typer.Option(metavar="N", help="To draw and score.")] = 32,
    trained: Annotated[int, typer.Option(metavar="N", help="Of those, to train.")] = 8,
    start: Annotated[Literal["scratch", "generated"], typer.Option(help="Weights to train from.")] = "scratch",
    batches: Annotated[int, typer.Option(metavar="N", help="Held-out batches.")] = 16,
    json: Json = None,
) -> None:
    """Tell how far a supernet's scores foretell what training gives.

    Training more of them narrows the intervals:

        nni-dynconv rank configs/one_shot.yml runs/quickstart
        nni-dynconv rank configs/one_shot.yml runs/quickstart --trained 20
    """
    with aside(json):
        settings, _ = enter(config)
        from . import ranking

        counts = {"architectures": architectures, "trained": trained, "batches": batches}
        with quiet():
            found = ranking.rank(settings.to_dict(), supernet, start=start, say=say, **counts)
        print(found)
        _keep(json_of(found.to_json()), supernet)
    write_json(found.to_json(), json)


def _keep(found: dict[str, Any], folder: Path) -> None:
    """Note a ranking in the run that it is of, whose report shows it."""
    from ..runs import Run

    if Run(folder).facts:
        Run(folder).history.add("ranking", **found)
