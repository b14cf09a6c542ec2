"""``nni-dynconv export``."""

from __future__ import annotations

from textwrap import indent

from ..shared import quiet, say
from .arguments import RunConfig, RunFolder, settings_of

__all__ = ["export"]


def export(run: RunFolder, config: RunConfig = None) -> None:
    """Export the network of a run, from the weights that it keeps.

    After a failure, once its cause is mended:

        nni-dynconv export runs/mine
    """
    settings = settings_of(config)
    from ...experiments import again

    with quiet():
        exported = again.export_again(run, settings)
    say(f"Exported. Use it:\n{indent(exported.use(run), '  ')}")
