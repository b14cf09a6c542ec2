"""What a run tells NNI: intermediate results once, in order and by phase, and exactly one final result."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nni
from nni.runtime.trial_command_channel import (
    TrialCommandChannel,
    get_default_trial_command_channel,
    set_default_trial_command_channel,
)
from nni.trial import overwrite_intermediate_seq
from pytorch_lightning.utilities import rank_zero_only

__all__ = ["Phase", "Reports", "words_of"]

Phase = Literal["search", "final", "result", "comparison"]
"""Training of the supernet, and of what was found; its validation; what comes after, of which NNI is not told."""


class Reports(TrialCommandChannel):
    """Stands between an evaluator and NNI while a run lasts, for evaluators of NNI's report by themselves, everything.

    Parameters
    ----------
    own
        Whether the evaluator's own reports are what NNI is told; else they are dropped, for someone else tells.
    about
        What a final result says beside its number: a mapping then, whose ``default`` is the number.

    Notes
    -----
    What was told is kept in a file: a part of a run may happen in processes that Lightning forks.
    """

    def __init__(self, own: bool = True, about: Mapping[str, Any] | None = None):
        self.own, self.about = own, about
        self.phase: Phase = "search"
        self._place = tempfile.TemporaryDirectory(prefix="reports-")
        self._file = Path(self._place.name, "told.jsonl")
        self._inner: TrialCommandChannel | None = None
        self._again = 0  # of what was told, so many will be told once more by a run that goes on

    def keep(self, path: Path, known: int | None = None) -> None:
        """Note what is told in a file that outlives this process.

        Parameters
        ----------
        path
            Of the file.
        known
            How much was told when the checkpoint was written that the run goes on from, so that what came after it is
            not told twice; ``None``: the run is new.
        """
        self._file = path
        noted = [] if known is None else self._noted()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(one)}\n" for one in noted), encoding="utf-8")
        self._again = max(len(noted) - (known or 0), 0)

    @property
    def count(self) -> int:
        """How much was told."""
        return len(self._noted()) - self._again

    def __deepcopy__(self, memo: dict[int, Any]) -> Reports:
        return self

    @contextmanager
    def between(self) -> Iterator[Reports]:
        """For a block, take what is reported to NNI."""
        if self._inner is not None:
            yield self
            return
        self._inner = get_default_trial_command_channel()
        set_default_trial_command_channel(self)
        try:
            yield self
        finally:
            set_default_trial_command_channel(self._inner)
            self._inner = None

    def receive_parameter(self) -> Any:
        return None if self._inner is None else self._inner.receive_parameter()

    def send_metric(
        self,
        type: Literal["PERIODICAL", "FINAL"],
        parameter_id: int | None,
        trial_job_id: str,
        sequence: int,
        value: Any,
    ) -> None:
        """Take a report of the evaluator's: intermediate ones go on, final ones wait for the end."""
        if not self.own or rank_zero_only.rank or self.phase == "comparison":
            return
        if type == "FINAL" or self.phase == "result":
            self._note(f"held in {self.phase}", value)
        else:
            self.intermediate(value)

    def intermediate(self, value: Any, **about: Any) -> None:
        """Tell NNI an intermediate result, after those before it.

        Parameters
        ----------
        about
            What is said beside its number.
        """
        if not self._again:
            with self._through():
                overwrite_intermediate_seq(sum(kind == "told" for kind, _ in self._noted()))
                nni.report_intermediate_result(_with(value, about) if about else value)
        self._note("told", value)

    def final(self, value: Any = None, **about: Any) -> None:
        """Tell NNI the result of the network that is kept: the value, or what the evaluator reported of it.

        Parameters
        ----------
        value
            Counts where the evaluator's own reports do not.
        about
            What is said besides, where anything is.

        Warns
        -----
        UserWarning
            The evaluator reports a result when a training ends, and none when the network that is kept is validated.
        """
        value = self._of_evaluator() if self.own else value
        if value is None or rank_zero_only.rank:
            return
        if not self._again:
            with self._through():
                nni.report_final_result(value if self.about is None else _with(value, {**self.about, **about}))
        self._note("final", value)

    def _of_evaluator(self) -> Any:
        held = [(kind, one) for kind, one in self._noted() if kind.startswith("held")]
        of_kept = [one for kind, one in held if kind == "held in result"]
        if of_kept or not held:
            return of_kept[-1] if of_kept else None
        warnings.warn(
            "The evaluator reports its result only when a training ends, and so not that of the epoch that is kept. "
            "Name a `metric`, or report in `on_validation_end` too.",
            stacklevel=3,
        )
        return held[-1][1]

    @contextmanager
    def _through(self) -> Iterator[None]:
        """For a block, let reports pass."""
        current = get_default_trial_command_channel()
        set_default_trial_command_channel(self._inner or current)
        try:
            yield
        finally:
            set_default_trial_command_channel(current)

    def _note(self, kind: str, value: Any) -> None:
        if self._again:
            self._again -= 1
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, value], default=float) + "\n")

    def _noted(self) -> list[tuple[str, Any]]:
        if not self._file.is_file():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may have cut the last one off


def _with(value: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    return {**(value if isinstance(value, Mapping) else {"default": value}), **about}


def words_of(sample: Mapping[str, Any]) -> str:
    """Return an architecture as NNI's page shows it.

    >>> words_of({"stem": "conv3", "body": "skip"})
    'stem = conv3, body = skip'
    """
    return ", ".join(f"{label} = {value}" for label, value in sample.items())
