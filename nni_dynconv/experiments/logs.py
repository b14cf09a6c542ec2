"""Where Lightning's own files of a trial lie: in the trial's folder, as all that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["keep_logs"]


def keep_logs(trainer: Any, folder: Path) -> None:
    """Let a trainer write its logs and checkpoints into a folder, unless its maker named another place.

    Lightning writes into the working directory, which is the code directory of all trials.

    Parameters
    ----------
    trainer
        Lightning's, not yet used.
    folder
        Of the trial.
    """
    default = trainer.default_root_dir
    if Path(default).resolve() != Path.cwd():
        return
    trainer._default_root_dir = str(folder)
    for logger in trainer.loggers:
        for name in ("_root_dir", "_save_dir"):  # Lightning's loggers have no setter
            if vars(logger).get(name) == default:
                vars(logger)[name] = str(folder)
