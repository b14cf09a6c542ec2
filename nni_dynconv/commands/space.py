"""``nni-dynconv space``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError

__all__ = ["space"]

ARGS_EXAMPLE = """Write it as in `--args '{"width": 8}'`."""


def space(
    reference: Annotated[str, typer.Option("--from", metavar="MODULE:CLASS", help="The model space's class.")],
    space_args: Annotated[str, typer.Option("--args", metavar="JSON", help="Its arguments.")] = "{}",
) -> None:
    """Print a model space as a `searchSpace` for NNI's own tuners.

    In the folder of the module:

        nni-dynconv space --from module:Space > search_space.json
        nni-dynconv space --from module:Space --args '{"width": 8}'
    """
    sys.path.insert(0, str(Path.cwd()))
    from ..experiments import search_space
    from ..nni_host import nas  # noqa: F401 (before anything of nni.nas)
    from ..settings import check_reference, load_object

    check_reference(reference, "the command line", "--from")
    found = load_object(reference)(**_arguments(space_args))
    print(json.dumps(search_space.search_space_of(found), indent=2))


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"`--args` is `{text}`, which is not JSON: {error}. {ARGS_EXAMPLE}") from None
    if not isinstance(arguments, dict):
        raise ConfigError(f"`--args` is `{text}`, but must be a mapping of argument names. {ARGS_EXAMPLE}")
    return arguments
