"""``nni-dynconv resume``."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import Output, Port, Timeout
from .telling import say

__all__ = ["resume"]


def resume(
    experiment: Annotated[str, typer.Argument(metavar="ID", help="`nnictl experiment list --all` shows it.")],
    port: Port = None,
    output: Output = None,
    timeout: Timeout = None,
) -> None:
    """Go on with a stopped experiment, as `launch` does.

    The sampler goes on from where it was:

        nni-dynconv resume ID --output runs/quickstart
    """
    from ..launching.launch import resume as run

    run(experiment, port, output, timeout, say)
