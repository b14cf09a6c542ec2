"""Each candidate once, on one batch: what raises is told with the label and the candidate that are to blame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from ...diagnosis import architectures, candidates_of, within
from ...errors import ConfigError, DynConvError, NotFiniteError
from ...phases import Phase
from ...search import candidate_of, module_of, site_of
from ...supernet import DynamicWeightMutator
from ..words import told

__all__ = ["run_each"]

Shapes = dict[tuple[str, str], tuple[int, ...]]
"""What candidates gave, by label and candidate."""


def run_each(mutator: DynamicWeightMutator, batch: Any, step: Callable[[Any], Any], now: Phase) -> None:
    """Run architectures in which each candidate stands once, each forward and backward.

    Parameters
    ----------
    step
        Gives the loss of a batch under the architecture that is open.
    now
        Told of each.

    Raises
    ------
    ConfigError
        One raises an error, whose words name label and candidate where these are to blame, or has no loss to learn by.
    """
    each = max((len(choice) for choice in mutator.choices.values()), default=1)
    samples = _samples(mutator, each)
    passed: list[Shapes] = []
    failed: list[tuple[Any, Shapes, Exception]] = []
    for number, sample in enumerate(samples):
        with _shapes(mutator) as shapes, within(mutator, sample):
            try:
                _check_loss(step(batch), sample)
                passed.append(shapes)
            except Exception as error:
                failed.append((sample, shapes, error))
        now.at(number + 1)
    if failed:
        raise ConfigError(_words(mutator, *failed[0], passed, len(samples))) from failed[0][2]


def _samples(mutator: DynamicWeightMutator, each: int) -> list[Any]:
    """One architecture after the other also where the sampler mixes all, and then the mixture."""
    sampler = mutator.sampler
    if not sampler.mixes or not mutator.choices:
        return architectures(mutator, each)[:each]
    columns = {label: choice.candidates for label, choice in mutator.choices.items()}
    return [*({label: one[n % len(one)] for label, one in columns.items()} for n in range(each)), None]


@contextmanager
def _shapes(mutator: DynamicWeightMutator) -> Iterator[Shapes]:
    """Note the shapes that candidates give in a block."""
    shapes: Shapes = {}

    def noting(place: tuple[str, str]) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes.setdefault(place, tuple(output.shape))

        return note

    with ExitStack() as stack:
        for place, modules in candidates_of(mutator.space).items():
            for module in modules:
                stack.callback(module.register_forward_hook(noting(place)).remove)
        yield shapes


def _check_loss(loss: Any, sample: Any) -> None:
    if loss is None:  # the step leaves its batch out
        return
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigError(f"`training_step` must return a loss, one number with gradient, but returned {found}.")
    if not math.isfinite(float(loss.detach())):
        raise NotFiniteError(f"The loss of the first batch is {float(loss.detach()):g}, before anything is trained.")
    if not loss.requires_grad:
        raise ConfigError(
            "The loss of `training_step` has no gradient: look for `detach()`, `no_grad()` or numpy on its way."
        )
    loss.backward()


def _words(
    mutator: DynamicWeightMutator, sample: Any, shapes: Shapes, error: Exception, passed: Sequence[Shapes], of: int
) -> str:
    what = "All candidates at once" if sample is None else f"Architecture {dict(sample)}"
    clashes = " ".join(_clashes(mutator, sample, shapes, passed))
    if clashes:
        return f"{what} fails. {clashes}\n  {told(error)}"
    if not passed and of > 1:
        what = f"All of {of} architectures fail, such as {what[0].lower()}{what[1:]}"
    module, site = module_of(error, mutator.space), site_of(error)
    where = f" at site `{site}`" if site is not None else ""
    where = where if module is None else f" at {candidate_of(mutator.space, module)}"
    by = "" if isinstance(error, DynConvError) or module is not None or site is not None else " in the evaluator's step"
    return f"{what} fails{where}{by}: {told(error)}"


def _clashes(
    mutator: DynamicWeightMutator, sample: Mapping[str, Any] | None, shapes: Shapes, passed: Sequence[Shapes]
) -> Iterator[str]:
    """Say which candidates of the failed architecture gave other shapes than those that passed."""
    for (label, candidate), shape in shapes.items():
        others = {name: one[label, name] for one in passed for at, name in one if at == label and name != candidate}
        if others and shape not in others.values():
            told = ", ".join(f"`{name}` {other}" for name, other in others.items())
            yield f"Label `{label}`: candidate `{candidate}` gives {shape}, but {told}."
    if sample is None:
        for label in mutator.choices:
            own = {name: shape for (at, name), shape in shapes.items() if at == label}
            if len(set(own.values())) > 1:
                told = ", ".join(f"`{name}` {shape}" for name, shape in own.items())
                yield f"Label `{label}`: its candidates give different shapes, {told}."
