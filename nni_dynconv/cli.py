"""The command ``nni-dynconv``: one function a subcommand; errors are told in words, without tracebacks."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigError, DynConvError, LaunchError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 for a run that failed, 2 for wrong settings or arguments, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LaunchError as error:
        return _fail(str(error), 1)
    except DynConvError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; everything that was started is stopped.", 130)
    except Exception as error:
        if os.environ.get("NNI_DYNCONV_DEBUG"):
            raise
        return _fail(_unexpected(error), 1)
    return 0


def _unexpected(error: Exception) -> str:
    """An error of the user's code, or of ours, with the place where it happened."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename}, line {place.lineno}"
    return f"{type(error).__name__}: {error} (in {where}; NNI_DYNCONV_DEBUG=1 shows the traceback)"


def _fail(message: str, status: int) -> int:
    sys.stdout.flush()
    print(f"nni-dynconv: {message}", file=sys.stderr, flush=True)
    return status


def _register(options: argparse.Namespace) -> None:
    from . import registration

    if options.remove:
        if not registration.remove():
            print("`DynamicWeightMutator` is not registered with NNI.")
    elif not registration.register():
        print("`DynamicWeightMutator` is registered with NNI already.")


def _check(options: argparse.Namespace) -> None:
    from .config import check_config

    check_config(options.config)
    print(f"{options.config} is well-formed.")


def _launch(options: argparse.Namespace) -> None:
    from .launch import launch

    launch(options.config, options.port, options.output, options.timeout, _say)


def _resume(options: argparse.Namespace) -> None:
    from .launch import resume

    resume(options.id, options.port, options.output, options.timeout, _say)


def _warmup(options: argparse.Namespace) -> None:
    from .config import check_config, code_directory_of, load_yaml

    settings = check_config(options.config, checkpoint_needed=False)
    if settings.checkpoint is None:
        raise ConfigError(f"{options.config} has no `checkpoint` to make: that is for `mode: multi_trial`.")
    directory = code_directory_of(load_yaml(options.config), options.config)
    path = (directory / settings.checkpoint).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)  # as NNI runs the trials
    sys.path.insert(0, str(directory))
    from .trial import warm_up

    partial = path.with_name(f"partial-{path.name}")  # an interrupted warm-up must not look like a checkpoint
    _remove(partial)
    warm_up(settings.to_dict(), partial)
    _remove(path)
    partial.rename(path)
    print(f"Wrote {path}")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nni-dynconv", description="Search networks with generated weights, with NNI."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    register = commands.add_parser("register", help="make the tuner name `DynamicWeightMutator` known to NNI")
    register.add_argument("--remove", action="store_true", help="take the registration back")
    register.set_defaults(run=_register)

    check = commands.add_parser("check", help="check the settings of an experiment's YAML")
    check.add_argument("config", type=Path)
    check.set_defaults(run=_check)

    warmup = commands.add_parser("warmup", help="train the shared checkpoint that multi-trial mode starts from")
    warmup.add_argument("config", type=Path)
    warmup.set_defaults(run=_warmup)

    launch = commands.add_parser("launch", help="run an experiment to its end and stop what it started")
    launch.add_argument("config", type=Path)
    launch.set_defaults(run=_launch)
    resume = commands.add_parser("resume", help="go on with a stopped experiment, as `launch` does")
    resume.add_argument("id")
    resume.set_defaults(run=_resume)
    for command in (launch, resume):
        command.add_argument("--port", type=int, help="port of NNI's web server (default: a free one)")
        command.add_argument("--output", type=Path, metavar="DIR", help="folder for the best trial's files")
        command.add_argument("--timeout", type=float, metavar="S", help="give up after so many seconds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
