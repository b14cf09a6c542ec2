"""What the process of a try runs: a YAML in, a verdict in a folder out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ...phases import carried
from ...settings import check_config, code_directory_of, load_yaml
from ..words import told
from .attempt import attempt

__all__ = ["main"]

VERDICT = "verdict.json"


def main(config: str, folder: str) -> None:
    """Try the experiment of a YAML; ``verdict.json`` in the folder has ``error`` or ``measured``."""
    place = Path(folder).resolve()
    settings = check_config(config, checkpoint_needed=False)
    directory = code_directory_of(load_yaml(config), config)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    with carried(place):
        try:
            verdict: dict[str, object] = {"measured": attempt(settings, place).lines()}
        except Exception as error:
            verdict = {"error": told(error)}
            if os.environ.get("NNI_DYNCONV_DEBUG"):
                raise
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        (place / VERDICT).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
