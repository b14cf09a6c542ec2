"""``nni-dynconv schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .shared import write_json

__all__ = ["schema"]


def schema(
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there, and print nothing.")] = None,
) -> None:
    """Print the JSON Schema of an experiment's YAML, for editors.

    By it they complete and check our settings and NNI's own keys:

        nni-dynconv schema --output experiment.schema.json

    A YAML names it in its first line: `# yaml-language-server: $schema=experiment.schema.json`.
    """
    from ..settings import experiment_schema

    text = json.dumps(experiment_schema(), indent=2)
    if output is None:
        print(text)
    else:
        write_json(text, output)
