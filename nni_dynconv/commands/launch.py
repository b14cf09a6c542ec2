"""``nni-dynconv launch``."""

from __future__ import annotations

from typing import Annotated

import typer

from .shared import Config, Output, Port, Timeout, say

__all__ = ["launch"]


def launch(
    config: Config,
    port: Port = None,
    output: Output = None,
    timeout: Timeout = None,
    tried: Annotated[bool, typer.Option("--try/--no-try", help="First take a batch through a trial.")] = True,
) -> None:
    """Run an experiment to its end and stop what it started.

    The best trial's files land in the folder that you name:

        nni-dynconv launch configs/one_shot.yml --output runs/quickstart
    """
    from ..launching import launch as launching

    launching.launch(config, port, output, timeout, say, tried)
