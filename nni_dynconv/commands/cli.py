"""The command ``nni-dynconv``: one function a subcommand; errors are told in words, without tracebacks."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DynConvError, LaunchError

if TYPE_CHECKING:
    from ..settings import RunSettings

__all__ = ["main"]

ARGS_EXAMPLE = """Write it as in `--args '{"width": 8}'`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 for a run that failed, 2 for wrong settings or arguments, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
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
    return status or 0


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
    from ..experiments import registration

    if options.remove:
        if not registration.remove():
            print("`DynamicWeightMutator` is not registered with NNI.")
    elif not registration.register():
        print("`DynamicWeightMutator` is registered with NNI already.")


def _check(options: argparse.Namespace) -> None:
    from ..settings import check_config

    check_config(options.config)
    print(f"{options.config} is well-formed.")


def _launch(options: argparse.Namespace) -> None:
    from ..launching.launch import launch

    launch(options.config, options.port, options.output, options.timeout, _say)


def _resume(options: argparse.Namespace) -> None:
    from ..launching.launch import resume

    resume(options.id, options.port, options.output, options.timeout, _say)


def _nnictl(options: argparse.Namespace) -> int:
    from ..launching.nnictl import nnictl

    return nnictl(options.arguments)


def _space(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path.cwd()))
    from ..experiments.search_space import search_space_of
    from ..nni_host import nas  # noqa: F401 (before anything of nni.nas)
    from ..settings import check_reference, load_object

    check_reference(options.reference, "the command line", "--from")
    space = load_object(options.reference)(**_arguments(options.space_args))
    print(json.dumps(search_space_of(space), indent=2))


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"`--args` is `{text}`, which is not JSON: {error}. {ARGS_EXAMPLE}") from None
    if not isinstance(arguments, dict):
        raise ConfigError(f"`--args` is `{text}`, but must be a mapping of argument names. {ARGS_EXAMPLE}")
    return arguments


def _enter(config: Path) -> tuple[RunSettings, Path]:
    """Check an experiment, and stand where NNI runs its trials; return its settings and that directory."""
    from ..settings import check_config, code_directory_of, load_yaml

    settings = check_config(config, checkpoint_needed=False)
    directory = code_directory_of(load_yaml(config), config)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    return settings, directory


def _warmup(options: argparse.Namespace) -> None:
    settings, directory = _enter(options.config)
    if settings.checkpoint is None:
        raise ConfigError(f"{options.config} has no `checkpoint` to make: that is for `mode: multi_trial`.")
    path = (directory / settings.checkpoint).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    from ..experiments.trial import warm_up

    partial = path.with_name(f"partial-{path.name}")  # an interrupted warm-up must not look like a checkpoint
    _remove(partial)
    warm_up(settings.to_dict(), partial)
    _remove(path)
    partial.rename(path)
    print(f"Wrote {path}")


def _doctor(options: argparse.Namespace) -> int:
    run = None if options.run_folder is None else options.run_folder.resolve()
    report = None if options.json is None else options.json.resolve()
    settings, _ = _enter(options.config)
    from .doctor import examine

    measures = {"batches": options.batches, "samples": options.samples, "ignore": options.ignore}
    found = examine(settings.to_dict(), run, progress=options.progress, **measures)
    _report(found, report)
    return 1 if found.faults else 0


def _rank(options: argparse.Namespace) -> None:
    supernet = options.supernet.resolve()
    report = None if options.json is None else options.json.resolve()
    settings, _ = _enter(options.config)
    from .rank import rank

    counts = {"architectures": options.architectures, "trained": options.trained, "batches": options.batches}
    found = rank(settings.to_dict(), supernet, start=options.start, say=_say, **counts)
    _report(found, report)


def _report(found: Any, file: Path | None) -> None:
    print(found)
    if file is not None:
        file.write_text(found.to_json() + "\n", encoding="utf-8")


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

    space = commands.add_parser("space", help="print a model space as a `searchSpace` for NNI's own tuners")
    space.add_argument("--from", dest="reference", required=True, metavar="MODULE:CLASS")
    space.add_argument("--args", dest="space_args", default="{}", metavar="JSON", help="its arguments")
    space.set_defaults(run=_space)

    nnictl = commands.add_parser("nnictl", help="run `nnictl` with its web server kept on this machine")
    nnictl.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS")
    nnictl.set_defaults(run=_nnictl)

    doctor = commands.add_parser("doctor", help="diagnose an experiment's network; status 1 where a fault is found")
    doctor.add_argument("config", type=Path)
    doctor.add_argument("--run", dest="run_folder", type=Path, metavar="DIR", help="a finished run, or a supernet")
    doctor.add_argument("--progress", type=float, metavar="P", help="how far the search is (default: 0; 1 of a run)")
    doctor.add_argument("--batches", type=int, default=8, metavar="N", help="training batches to use (default: 8)")
    doctor.add_argument("--samples", type=int, default=12, metavar="N", help="architectures to run (default: 12)")
    doctor.add_argument("--ignore", action="append", default=[], metavar="CODE", help="leave a finding out")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured, too")
    doctor.set_defaults(run=_doctor)

    rank = commands.add_parser("rank", help="tell how far a supernet's scores foretell what training gives")
    rank.add_argument("config", type=Path)
    rank.add_argument("supernet", type=Path, help="folder `supernet` of a search's files, or a `checkpoint`")
    rank.add_argument("--architectures", type=int, default=32, metavar="N", help="to draw and score (default: 32)")
    rank.add_argument("--trained", type=int, default=8, metavar="N", help="of those, to train (default: 8)")
    rank.add_argument("--start", choices=("scratch", "generated"), default="scratch", help="weights to train from")
    rank.add_argument("--batches", type=int, default=16, metavar="N", help="held-out batches (default: 16)")
    rank.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured, too")
    rank.set_defaults(run=_rank)

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
