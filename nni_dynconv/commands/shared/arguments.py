"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .telling import STDOUT

__all__ = ["Config", "Json", "Output", "Port", "Timeout"]


def _destination(text: str) -> Path:
    """Where JSON goes, before the command stands elsewhere; typer 0.29 resolves ``-`` too, whatever it is told."""
    return STDOUT if text == "-" else Path(text).resolve()


WHERE = "Write everything that was measured, too; `-`: to the standard output, and tables to the standard error."

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="An experiment's YAML.")]
Json = Annotated[Path | None, typer.Option(metavar="FILE", parser=_destination, help=WHERE)]
Port = Annotated[int | None, typer.Option(metavar="N", show_default="a free one", help="Port of NNI's web server.")]
Output = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the best trial's files.")]
Timeout = Annotated[float | None, typer.Option(metavar="S", help="Give up after so many seconds.")]
