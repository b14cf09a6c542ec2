"""``nni-dynconv doctor``; what it finds out is in ``examining.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .shared import Config, Json, aside, enter, quiet, write_json

if TYPE_CHECKING:
    from ..diagnosis import Diagnosis

__all__ = ["doctor"]


def doctor(
    config: Config,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished run, or a supernet.", resolve_path=True)
    ] = None,
    progress: Annotated[
        float | None, typer.Option(metavar="P", help="How far the search is.", show_default="0; 1 of a run")
    ] = None,
    batches: Annotated[int, typer.Option(metavar="N", help="Training batches to use.")] = 8,
    samples: Annotated[int, typer.Option(metavar="N", help="Architectures to run.")] = 12,
    ignore: Annotated[list[str] | None, typer.Option(metavar="CODE", help="Leave a finding out.")] = None,
    json: Json = None,
) -> int:
    """Diagnose an experiment's network; status 1 tells of a fault.

    Before an experiment, after it, and for a program to read:

        nni-dynconv doctor configs/one_shot.yml
        nni-dynconv doctor configs/one_shot.yml --run runs/quickstart
        nni-dynconv doctor configs/one_shot.yml --json - > doctor.json
    """
    with aside(json):
        settings, _ = enter(config)
        from .examining import examine

        options: dict[str, Any] = {"progress": progress, "batches": batches, "samples": samples, "ignore": ignore or ()}
        with quiet():
            found = examine(settings.to_dict(), run, **options)
        print(found)
        _keep(found, run)
    write_json(found.to_json(), json)
    return 1 if found.faults else 0


def _keep(found: Diagnosis, folder: Path | None) -> None:
    """Note a diagnosis in the run that it is of, whose report shows it."""
    from ..runs import Run

    if folder is not None and Run(folder).facts:
        Run(folder).history.add("diagnosis", **found.to_dict())
