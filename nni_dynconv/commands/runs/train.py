"""``nni-dynconv train``."""

from __future__ import annotations

from textwrap import indent
from typing import Annotated

import typer

from ..shared import quiet, say
from .arguments import RunConfig, RunFolder, settings_of

__all__ = ["train"]


def train(
    run: RunFolder,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="For how many.", show_default="as the run's settings say")
    ] = None,
    config: RunConfig = None,
) -> None:
    """Train what a run found, from the weights that it has.

    The best epoch is kept, and exported; where none is better than before, the run stays as it is:

        nni-dynconv train runs/mine
        nni-dynconv train runs/mine --epochs 20
    """
    settings = settings_of(config)
    from ...experiments import again
    from ...runs import Run

    before = Run.read(run).facts.get("result")
    with quiet():
        trained = again.train_on(run, epochs, settings)
    say(str(trained))
    now = Run.read(run)
    if now.facts.get("result") == before and trained.result != before:
        say(f"That is no better than {before:.4g} before, so the run stays as it was.")
    if now.network.is_file():
        say(f"Use it:\n{indent(now.use(run), '  ')}")
    for line in now.told(run):
        say(line)
