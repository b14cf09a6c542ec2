"""Where a command that runs an experiment's own code stands: in the folder of its trials."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...settings import RunSettings

__all__ = ["enter"]


def enter(config: Path) -> tuple[RunSettings, Path]:
    """Check an experiment, and stand where NNI runs its trials; return its settings and that directory."""
    from ...settings import check_config, code_directory_of, load_yaml

    settings = check_config(config, checkpoint_needed=False)
    directory = code_directory_of(load_yaml(config), config)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    return settings, directory
