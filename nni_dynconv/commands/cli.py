"""The command ``nni-dynconv``: its commands put together, one file each, and wrong use told in words."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from .. import __version__
from .check import check
from .doctor import doctor
from .launch import launch
from .nnictl import nnictl
from .rank import rank
from .register import register
from .resume import resume
from .runs import compare, export, report, train
from .schema import schema
from .shared import fail, in_words
from .space import space
from .starting import new
from .warmup import warmup

__all__ = ["COMMANDS", "application", "main"]

_ON_SEARCHES = (launch, resume, train, export, report, compare)
COMMANDS = (new, register, check, schema, warmup, space, nnictl, doctor, rank, *_ON_SEARCHES)
EXIT_CODES = "Exit codes: 0 fine, 1 a finding or a run that failed, 2 wrong use, 130 interrupted."
PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 for a run that failed, 2 for wrong settings or arguments, 130 for Ctrl-C."""
    try:
        return application()(arguments, prog_name="nni-dynconv", standalone_mode=False)
    except typer.TyperException as error:  # the arguments are wrong
        context = getattr(error, "ctx", None)
        hint = f"\n  `{context.command_path} --help` tells what it takes." if context is not None else ""
        return fail(error.format_message() + hint, 2)


def application() -> typer.Typer:
    """Put the commands together; their help is laid out for a terminal, and plain text elsewhere."""
    app = typer.Typer(
        callback=_nni_dynconv,
        epilog=EXIT_CODES,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        pretty_exceptions_enable=False,
    )
    for command in COMMANDS:
        settings = PASSED_ON if command is nnictl else None
        app.command(help=_help(command), epilog=EXIT_CODES, context_settings=settings)(in_words(command))
    return app


def _help(command: Callable[..., Any]) -> str:
    """Its docstring, with the mark (a backspace) by which examples keep their lines."""
    return inspect.cleandoc(command.__doc__ or "").replace(":\n\n    ", ":\n\n\b\n    ")


def _version(asked: bool) -> None:
    if asked:
        print(f"nni-dynconv {__version__}")
        raise typer.Exit


def _nni_dynconv(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search networks with generated weights, with NNI."""
