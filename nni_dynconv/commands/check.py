"""``nni-dynconv check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import LaunchError
from .shared import Config, say

if TYPE_CHECKING:
    from ..settings import RunSettings

__all__ = ["check"]


def check(
    config: Config,
    tried: Annotated[bool, typer.Option("--try", help="Take a batch through all that a trial does.")] = False,
) -> None:
    """Check the settings of an experiment's YAML.

    Nothing is started; with `--try` a batch goes through training, validation, freezing, saving and loading, in a
    process of its own:

        nni-dynconv check configs/one_shot.yml
        nni-dynconv check configs/one_shot.yml --try
    """
    from ..settings import check_config

    settings = check_config(config, checkpoint_needed=False)
    print(f"{config} is well-formed.", flush=True)
    _tell_checkpoint(settings, config)
    if tried:
        from ..launching import trying

        reason = trying.why_not(config)
        if reason is not None:
            raise LaunchError(f"The experiment cannot be tried here: {reason}")
        trying.try_out(config, say)


def _tell_checkpoint(settings: RunSettings, config: Path) -> None:
    """Say of a multi-trial experiment that its checkpoint is still to be made, which plain ``nnictl`` needs first."""
    from ..settings import code_directory_of, load_yaml

    if settings.checkpoint is None or (code_directory_of(load_yaml(config), config) / settings.checkpoint).exists():
        return
    print(
        f"Its `checkpoint` {settings.checkpoint} is not there yet: `nni-dynconv launch {config}` makes it, and for "
        f"plain `nnictl` `nni-dynconv warmup {config}` does."
    )
