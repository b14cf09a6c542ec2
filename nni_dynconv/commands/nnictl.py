"""``nni-dynconv nnictl``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["nnictl"]


def nnictl(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Those of `nnictl`.")] = None,
) -> int:
    """Run `nnictl` with its web server kept on this machine.

    NNI itself opens it, without a password, on all addresses:

        nni-dynconv nnictl view ID
        nni-dynconv nnictl create --help
    """
    from ..launching import nnictl as launching

    return launching.nnictl(arguments or [])
