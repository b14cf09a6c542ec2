"""What becomes of a step that cannot be taken: the search stops, or it is left out and nothing is learned from it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import CandidateError, NotFiniteError
from ...samplers import distributed
from ...settings import StrategySettings
from ...supernet import DynamicWeightMutator, tracking_norms
from .blame import candidate_of, stuck_in
from .naming import Sample, in_words, named
from .numbers import objection, squares_are_finite

__all__ = ["Guard"]

OTHERS = "Another process of this search could not take the step; what it says stands in its own output."


class Guard:
    """Decides what becomes of a step that raised an error, or whose numbers are none.

    Parameters
    ----------
    mutator
        Whose architectures run.
    settings
        ``on_not_finite``, ``on_error`` and ``skip_limit``.

    Attributes
    ----------
    skipped
        Steps that were left out.
    """

    def __init__(self, mutator: DynamicWeightMutator, settings: StrategySettings):
        self.mutator, self.settings = mutator, settings
        self.skipped = 0
        self._norms = tracking_norms(mutator.space)

    def forward(self, run: Callable[[], Any], loss_of: Callable[[Any], Any], place: str) -> tuple[Any, bool]:
        """Run the drawn architecture; return what it gave, and whether all processes can go on from it.

        Parameters
        ----------
        run
            The forward.
        loss_of
            Returns the loss of what ``run`` gave; ``None`` where the evaluator leaves the step out itself.
        place
            Which step it is, for the errors.

        Raises
        ------
        NotFiniteError, CandidateError
            The loss is no finite number, or the forward raised, and it is not to be left out, or too often.
        """
        sample, output = dict(self.mutator.sample or {}), None
        problem: Exception | None = None
        with self._own_statistics() as restore:
            try:
                output = run()
                problem = objection(loss_of(output), place, sample, self.mutator.space, run)
            except Exception as error:
                problem = self.named(error, place, sample)
            if not distributed.any_of(problem is not None):
                return output, True
            restore()
        self.leave_out(problem)
        return None, False

    def backward(
        self, backward: Callable[[], None], again: Callable[[], Any], parameters: Iterable[nn.Parameter], place: str
    ) -> bool:
        """Run the backward of a step, and return whether it can be taken; else no gradient is left.

        Parameters
        ----------
        backward
            Leaves gradients in ``parameters``.
        again
            Runs the forward once more and returns its loss, to find the candidate to blame.
        parameters
            Those that a step would change; they are gone through only where it cannot be taken.
        place
            Which step it is, for the errors.

        Raises
        ------
        CandidateError
            The backward raised, and the step is not to be left out, or too often.
        """
        problem: Exception | None = None
        try:
            backward()
        except Exception as error:
            problem = self._stuck(error, place, again)
        if not distributed.any_of(problem is not None):
            return True
        for one in parameters:
            one.grad = None
        self.leave_out(problem)
        return False

    def _stuck(self, error: Exception, place: str, again: Callable[[], Any]) -> Exception:
        with self._own_statistics() as restore:
            module = stuck_in(self.mutator.space, again)
            restore()
        if module is None:
            return error
        sample, where = dict(self.mutator.sample or {}), candidate_of(self.mutator.space, module)
        return in_words(error, f"{place}, architecture {sample}, in the backward of what is {where}")

    def named(self, error: Exception, place: str, sample: Sample) -> Exception:
        """Return an error that names the architecture and, where the supernet raised it, the candidate."""
        own_stay = self.settings.on_error == "stop"
        return named(error, place, sample, self.mutator.space, own_stay)

    def leave_out(self, problem: Exception | None) -> None:
        """Raise it, or count it where such steps are to be left out.

        Parameters
        ----------
        problem
            ``None`` where it is another process's.
        """
        settings = self.settings
        options = {settings.on_not_finite, settings.on_error} if problem is None else {self._option(problem)}
        self.skipped += 1
        if options == {"stop"}:
            raise problem or CandidateError(OTHERS)
        if self.skipped > settings.skip_limit:
            raise NotFiniteError(
                f"{self.skipped} steps of this search could not be taken, more than `skip_limit={settings.skip_limit}` "
                f"allows. The last: {problem or OTHERS}"
            ) from problem
        warnings.warn(f"Left out ({self.skipped} of at most {settings.skip_limit}): {problem or OTHERS}", stacklevel=2)

    def _option(self, problem: Exception) -> str:
        return self.settings.on_not_finite if isinstance(problem, NotFiniteError) else self.settings.on_error

    def gradients(self, parameters: list[nn.Parameter], place: str) -> bool:
        """Whether gradients can be stepped by; their squares are finite then, which Adam keeps.

        Raises
        ------
        NotFiniteError
            They cannot, and the step is not to be left out, or too often.
        """
        reached = [one for one in parameters if one.grad is not None]
        if math.isfinite(float(nn.utils.clip_grad_norm_(reached, math.inf))):
            return True
        names = {id(one): name for name, one in self.mutator.named_parameters()}
        blamed = [names.get(id(one), "") for one in reached if not squares_are_finite(one.grad)]
        sample = dict(self.mutator.sample or {})
        self.leave_out(
            NotFiniteError(
                f"{place}: the loss of architecture {sample} is finite, but its gradient is not, or is too large for "
                f"its square: of `{next(filter(None, blamed), 'all together')}`, of {len(reached)} parameters. Nothing "
                f"was learned from it. Lower the learning rate or the loss's scale; "
                f'`on_not_finite="skip"` leaves such steps out.'
            )
        )
        return False

    def measured(self, sample: Sample, measure: Callable[[], float], place: str) -> float:
        """Return what an architecture measures; one that raises, and may be left out, measures as no number."""
        try:
            return measure()
        except Exception as error:
            problem = self.named(error, place, sample)
            if self.settings.on_error == "stop":
                raise problem from error
            warnings.warn(f"Ranked last: {problem}", stacklevel=2)
            return math.nan

    @contextmanager
    def _own_statistics(self) -> Iterator[Callable[[], None]]:
        """Give what puts BatchNorm's statistics back: a forward that is left out must not stay in them."""
        buffers = [one for norm in self._norms for one in norm.buffers(recurse=False)]
        before = [one.clone() for one in buffers]

        @torch.no_grad()
        def restore() -> None:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)

        yield restore
