"""``nni-dynconv check``."""

from __future__ import annotations

from .shared import Config

__all__ = ["check"]


def check(config: Config) -> None:
    """Check the settings of an experiment's YAML.

    Nothing is started:

        nni-dynconv check configs/one_shot.yml
    """
    from ..settings import check_config

    check_config(config)
    print(f"{config} is well-formed.")
