"""Steps of a search that cannot be taken: named, and left out where that is allowed; nothing is learned from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CandidateError, DynConvError, NotFiniteError
from ..generation import unasked_in
from ..samplers import distributed
from ..settings import StrategySettings
from ..supernet import DynamicWeightMutator, tracking_norms
from .blame import candidate_of, first_not_finite, module_of, site_of, stuck_in

__all__ = ["Guard", "check_parameters"]

Sample = Mapping[str, Any]
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
                problem = self.objection(loss_of(output), place, sample, run)
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
        return self._in_words(error, f"{place}, architecture {sample}, in the backward of what is {where}")

    def objection(
        self, loss: Any, place: str, sample: Sample, again: Callable[[], Any] | None = None
    ) -> NotFiniteError | None:
        """Return the error of a loss that is no finite number, with what is to blame, or ``None``."""
        if loss is None or math.isfinite(value := float(torch.as_tensor(loss).detach())):
            return None
        blame = "" if again is None else self._blame(again)
        return NotFiniteError(
            f"{place}: the loss of architecture {dict(sample)} is {value:g}.{blame} Nothing was learned from it. Lower "
            f'the learning rate or clip gradients (`gradient_clip_val`); `on_not_finite="skip"` leaves such steps out.'
        )

    def _blame(self, again: Callable[[], Any]) -> str:
        broken = _not_finite(self.mutator.space)
        if broken is not None:
            return f" The parameter `{broken}` holds numbers that are not finite."
        return first_not_finite(self.mutator.space, again)

    def named(self, error: Exception, place: str, sample: Sample) -> Exception:
        """Return an error that names the architecture and, where the supernet raised it, the candidate."""
        unasked = unasked_in(error)
        if unasked is not None:
            return unasked
        module, site = module_of(error, self.mutator.space), site_of(error)
        if module is None and site is None and self.settings.on_error == "stop":
            return error  # the evaluator's own: no candidate is to blame
        where = f"site `{site}`" if site is not None else "outside of its sites"
        where = where if module is None else candidate_of(self.mutator.space, module)
        return self._in_words(error, f"{place}, architecture {dict(sample)}, {where}")

    @staticmethod
    def _in_words(error: Exception, said: str) -> Exception:
        if isinstance(error, DynConvError):
            named: Exception = type(error)(f"{error}\n({said})")
        else:
            named = CandidateError(
                f'{said}: {type(error).__name__}: {error}\n`on_error="skip"` leaves out what raises, and the search '
                f"goes on."
            )
        named.__cause__ = error
        return named

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
        blamed = [names.get(id(one), "") for one in reached if not _squares_are_finite(one.grad)]
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


def check_parameters(module: nn.Module, when: str) -> None:
    """Refuse what a network of no numbers would be exported from.

    Raises
    ------
    NotFiniteError
        A parameter is no finite number.
    """
    broken = _not_finite(module)
    if broken is not None:
        raise NotFiniteError(
            f"{when} the parameter `{broken}` is not finite: the last steps were too large. Nothing is exported. Lower "
            f"the learning rate or clip gradients (`gradient_clip_val`)."
        )


def _not_finite(module: nn.Module) -> str | None:
    return next((name for name, one in module.named_parameters() if not one.isfinite().all()), None)


def _squares_are_finite(gradient: Tensor | None) -> bool:
    return gradient is None or math.isfinite(float(gradient.norm()))
