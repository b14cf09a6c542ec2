"""What commands on runs are given: the folder, and settings where the run knows none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..shared import enter

__all__ = ["RunConfig", "RunFolder", "settings_of"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", resolve_path=True)]
RunConfig = Annotated[
    Path | None,
    typer.Option("--config", metavar="CONFIG", help="An experiment's YAML, instead of the settings that it knows."),
]


def settings_of(config: Path | None) -> dict[str, Any] | None:
    """Return the settings of a YAML, and stand where its trials do."""
    return None if config is None else enter(config)[0].to_dict()
