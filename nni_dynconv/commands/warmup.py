"""``nni-dynconv warmup``."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import ConfigError
from .shared import Config, enter

__all__ = ["warmup"]


def warmup(config: Config) -> None:
    """Train the shared checkpoint that multi-trial mode starts from.

    `launch` makes it when it is missing; plain `nnictl` needs it first:

        nni-dynconv warmup configs/multi_trial.yml
        nnictl create --config configs/multi_trial.yml
    """
    settings, directory = enter(config)
    if settings.checkpoint is None:
        raise ConfigError(f"{config} has no `checkpoint` to make: that is for `mode: multi_trial`.")
    path = (directory / settings.checkpoint).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    from ..experiments import trial

    partial = path.with_name(f"partial-{path.name}")  # an interrupted warm-up must not look like a checkpoint
    _remove(partial)
    trial.warm_up(settings.to_dict(), partial)
    _remove(path)
    partial.rename(path)
    print(f"Wrote {path}")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
