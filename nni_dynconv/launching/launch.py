"""``nni-dynconv launch`` and ``resume``: check, register, start through ``nnictl``, watch, stop all.

Each of these has a file beside this one; what a launch leaves is in ``results.py``.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import LaunchError
from ..experiments import registration
from ..phases import Line
from ..settings import RunSettings, check_config, code_directory_of, load_yaml
from . import remote
from .destination import Destination
from .experiment import LocalExperiment
from .killed import run_killed_again
from .nnictl import check_node, choose_port
from .outcome import Outcome
from .places import check_places
from .progress import Progress
from .results import check_output, deliver
from .running.patience import UnfinishedError
from .running.starting import start
from .running.stopping import stopping
from .running.taking_over import take_over
from .running.watching import watch
from .trying import OUT_OF_TIME, try_out, why_not

__all__ = ["launch", "resume"]


def launch(
    config: str | Path,
    port: int | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
    tried: bool = True,
) -> Outcome:
    """Run the experiment of a YAML to its end and leave no process behind.

    Parameters
    ----------
    config
        The experiment's YAML.
    port
        Port of NNI's web server; ``None`` chooses a free one.
    output
        Folder that receives the files of the best trial.
    timeout
        Seconds after which to give up.
    say
        Receives the lines that tell the progress.
    tried
        Whether the experiment is tried first, on a batch, where that can be done here.

    Raises
    ------
    ConfigError
        A setting is wrong; nothing was started.
    LaunchError
        The experiment was tried, and failed; the port is taken, machines of a ``remote`` training service cannot
        reach NNI's manager, NNI or the tuner did not start, the first trial failed before any metric, no trial
        succeeded, or the time is over; or another run, which is not over, belongs into ``output``. Everything is
        stopped then.
    """
    began = time.monotonic()
    settings = check_config(config, checkpoint_needed=False)
    document = load_yaml(config)
    _check_machine()
    check_places(document, Path(config))
    check_output(output)
    remote.check_reachable(document, config)
    experiment, destination, deadline = (
        LocalExperiment(choose_port(port)),
        Destination(output),
        _deadline(began, timeout),
    )

    def begin() -> None:
        experiment.create(Path(config), deadline)

    with destination.held():
        destination.check(say)
        if registration.register():
            say("Registered the tuner `DynamicWeightMutator` with NNI.")
        with stopping(experiment, say):
            if tried:
                _try(config, experiment, deadline, say)
            _make_checkpoint(config, settings, experiment, deadline, say)
        return _run(_Launch(experiment, settings, destination, port, deadline, began, say), begin)


def resume(
    experiment_id: str,
    port: int | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Go on with a stopped experiment as :func:`launch` does; the arguments are the same."""
    from nni.tools.nnictl.config_utils import Config, Experiments

    from ..settings import check_class_args

    began = time.monotonic()
    known = Experiments().get_all_experiments().get(experiment_id)
    if known is None:
        raise LaunchError(f"NNI knows no experiment `{experiment_id}`. `nnictl experiment list --all` lists them.")
    _check_machine()
    check_output(output)
    experiment, destination, deadline = (
        LocalExperiment(choose_port(port)),
        Destination(output),
        _deadline(began, timeout),
    )

    def begin() -> None:
        experiment.resume(experiment_id, deadline)

    with destination.held():
        destination.check(say, experiment_id)
        take_over(experiment_id, say)
        document = Config(experiment_id, known["logDir"]).get_config()
        remote.check_reachable(document, f"the experiment `{experiment_id}`")
        settings = check_class_args(document["tuner"].get("classArgs") or {})
        run_killed_again(Path(known["logDir"], experiment_id), settings.mode == "one_shot", say)
        return _run(_Launch(experiment, settings, destination, port, deadline, began, say), begin)


class _Launch(NamedTuple):
    """What a launch and a resume have in common."""

    experiment: LocalExperiment
    settings: RunSettings
    destination: Destination
    port: int | None
    deadline: float
    began: float
    say: Callable[[str], None]


def _run(run: _Launch, begin: Callable[[], None]) -> Outcome:
    """Start, watch and stop an experiment; what has finished is delivered, however it ends."""
    progress = Progress(run.settings.optimize_mode, run.say)
    try:
        with stopping(run.experiment, run.say), Line(run.say) as line:
            progress.say, progress.line = line.say, line
            start(run.experiment, begin, line, run.port, run.deadline)
            line.say("RUNNING")
            watch(run.experiment, progress, run.destination, run.deadline)
    except (LaunchError, KeyboardInterrupt) as error:
        if progress.measured or not isinstance(error, LaunchError) or isinstance(error, UnfinishedError):
            with contextlib.suppress(OSError):  # a terminal that is closed
                _leave_unfinished(run, progress.outcome())
        raise
    run.destination.over()
    outcome = progress.outcome()
    deliver(outcome, run.experiment, run.destination.folder, run.began, run.say)
    return outcome


def _leave_unfinished(run: _Launch, outcome: Outcome) -> None:
    """Deliver what has finished of an experiment that has not, and say how it goes on."""
    experiment, folder = run.experiment, run.destination.folder
    if experiment.id is None:
        return
    if outcome.best is not None:
        try:
            deliver(outcome, experiment, folder if run.destination.is_free else None, run.began, run.say)
            run.destination.mark(experiment.id)
        except LaunchError as error:
            run.say(str(error))
    elif outcome.evaluated:
        run.say(outcome.told())
    where = "" if folder is None else f" --output {folder}"
    run.say(f"The experiment is not over. `nni-dynconv resume {experiment.id}{where}` goes on with it.")


def _check_machine() -> None:
    _check_interpreter(sys.executable)
    check_node()


def _check_interpreter(path: str) -> None:
    """NNI starts the tuner through a shell, with this Python's path unquoted."""
    if any(character.isspace() for character in path):
        raise LaunchError(
            f"This Python lies at `{path}`, and NNI 3.0 cannot start a tuner from a path with a space. Move the "
            f"virtual environment to a path without one."
        )


def _deadline(began: float, timeout: float | None) -> float:
    return math.inf if timeout is None else began + timeout


def _try(config: str | Path, experiment: LocalExperiment, deadline: float, say: Callable[[str], None]) -> None:
    reason = why_not(config)
    if reason is not None:
        say(f"The experiment is not tried: {reason}")
        return
    try_out(config, say, deadline, experiment.environment)


def _make_checkpoint(
    config: str | Path,
    settings: RunSettings,
    experiment: LocalExperiment,
    deadline: float,
    say: Callable[[str], None],
) -> None:
    """Train the shared checkpoint of multi-trial mode if it is not there, in a process of its own."""
    if settings.checkpoint is None:
        return
    path = code_directory_of(load_yaml(config), config) / settings.checkpoint
    if path.exists():
        return
    say(f"Making the shared checkpoint {settings.checkpoint} ...")
    command = [sys.executable, "-m", "nni_dynconv.commands", "warmup", str(config)]
    process = subprocess.Popen(command, env=experiment.environment, start_new_session=True)
    try:
        status = process.wait(None if deadline == math.inf else max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise LaunchError(OUT_OF_TIME) from None
    if status != 0:
        raise LaunchError("The shared checkpoint could not be made; what went wrong stands above.")
