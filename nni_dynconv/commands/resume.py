"""``nni-dynconv resume``."""

from __future__ import annotations

from typing import Annotated

import typer

from .shared import Output, Port, Timeout, say

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
    from ..launching import launch

    launch.resume(experiment, port, output, timeout, say)
