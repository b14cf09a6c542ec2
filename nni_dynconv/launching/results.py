"""What a launch leaves: the files of the best trial, in a folder of the user's, and the lines that tell them."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

from ..errors import LaunchError
from ..phases import STATE_FILE
from ..reporting import trials_csv
from ..runs import UNTRAINED, Run
from . import remote
from .destination import UNFINISHED
from .experiment import LocalExperiment
from .outcome import Outcome, show

__all__ = ["check_output", "deliver"]

MARKER, TRIALS = "experiment.json", "trials.csv"
NNI_FILES = (".nni", "trial.*", "parameter.cfg", "run.sh", "stdout", "stderr", "metrics", STATE_FILE)


def check_output(output: str | Path | None) -> None:
    """Refuse to overwrite a folder that an earlier launch did not write."""
    if output is None:
        return
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise LaunchError(f"`--output` is {folder}, which is a file. Name a folder.")
    if folder.is_dir() and {one.name for one in folder.iterdir()} - {UNFINISHED} and not (folder / MARKER).is_file():
        raise LaunchError(f"`--output` is {folder}, which holds files that no launch wrote. Name another folder.")


def deliver(
    outcome: Outcome, experiment: LocalExperiment, output: str | Path | None, began: float, say: Callable[[str], None]
) -> None:
    """Tell what became of the trials, and put the best one's files where the user wants them.

    Raises
    ------
    LaunchError
        There is no result, or the files cannot be written there; then it is said where they lie.
    """
    say(outcome.told())
    if outcome.best is None:
        raise LaunchError("\n".join(["No trial brought a result.", *_what_is_left(outcome)]))
    for line in _what_is_left(outcome):
        say(line)
    source = outcome.best["logPath"]
    say(f"Best trial: {outcome.best['trialJobId']}, result {show(outcome.metric)}")
    if output is None:
        say(f"Its files lie in {source}")
        _say_run(Path(source), say)
        return
    try:
        _put(source, outcome, experiment, Path(output).resolve(), began)
    except OSError as error:
        raise LaunchError(
            f"{output} cannot be written: {error}\nIt holds what it held, and nothing is lost: the files of the best "
            f"trial lie in {source}. Make room, or copy them elsewhere."
        ) from error
    _say_results(Path(output), say)


def _put(source: str, outcome: Outcome, experiment: LocalExperiment, folder: Path, began: float) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:200]}-") as place:
        new = Path(place, "new")
        _copy(source, experiment, new)
        _write_facts(new, outcome, experiment, began)
        _put_in_place(new, folder, Path(place, "old"))


def _copy(source: str, experiment: LocalExperiment, folder: Path) -> None:
    """Copy a trial's own files, also from another machine. NNI's lie beside them, not in folders of the trial's."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        return ignore(directory, names) if directory == source else set()

    ignore = shutil.ignore_patterns(*NNI_FILES)
    with tempfile.TemporaryDirectory() as place:
        if remote.is_remote(source):
            remote.fetch(source, experiment.machines, Path(place, "trial"))
            source = str(Path(place, "trial"))
        shutil.copytree(source, folder, ignore=ignored)


def _write_facts(folder: Path, outcome: Outcome, experiment: LocalExperiment, began: float) -> None:
    facts: dict[str, Any] = {"experiment_id": experiment.id, "seconds": round(time.monotonic() - began, 1)}
    _complete_summary(folder / "summary.json", facts)
    best = outcome.best["trialJobId"] if outcome.best is not None else None
    facts |= {"best_trial": best, "result": outcome.metric, "trials": outcome.counts, "evaluated": outcome.evaluated}
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (folder / TRIALS).write_text(trials_csv(outcome.evaluated), encoding="utf-8")


def _put_in_place(new: Path, folder: Path, old: Path) -> None:
    """Swap a whole folder in: what an earlier launch left stays until then."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)


def _complete_summary(path: Path, facts: dict[str, Any]) -> None:
    """The trial writes the summary, but the time of the whole run is known here."""
    if path.is_file():
        summary = {**json.loads(path.read_text(encoding="utf-8")), **facts}
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _say_results(folder: Path, say: Callable[[str], None]) -> None:
    for report in (Run(folder).table.with_suffix(".txt"), folder / "report.txt"):
        if report.is_file():
            say("\n" + report.read_text(encoding="utf-8").rstrip())
    say(f"\nFiles in {folder}: " + ", ".join(sorted(one.name for one in folder.iterdir())))
    _say_run(folder, say)


def _say_run(folder: Path, say: Callable[[str], None]) -> None:
    """Say how the network is used, and what is left to do: the last lines, which nobody overlooks."""
    if remote.is_remote(str(folder)):
        return
    run = Run(folder)
    if run.network.is_file():
        if run.report.is_file():
            say(f"Look at it: {folder / run.report.name}")
        say("Use it:\n" + indent(f"{run.use()}\ny = net(x, context)", "  "))
    for line in run.told():
        say(line)


def _what_is_left(outcome: Outcome) -> list[str]:
    """Say which trials that brought no result had found something, and how one goes on with it."""
    there = [one for one in outcome.left if not remote.is_remote(one)]
    found = [run for run in map(Run, there) if run.facts.get("state") == UNTRAINED and run.weights.is_file()]
    return [
        f"{run.folder} holds what the search of a trial had found that did not end. {run.told()[0]}" for run in found
    ]
