"""Labels, candidates and constraints of a space, read off NNI's own ``simplify()``; no network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from nni.mutable import Categorical, CategoricalMultiple, Constraint, Mutable, MutableAnnotation, MutableSymbol
from torch import Tensor

from ..errors import SampleError, SpaceError, did_you_mean
from .constrained import Allowed, Growth, read

__all__ = ["Choice", "Choices", "check_sample", "choices_of"]

MOST_CANDIDATES = 4096


@dataclass(frozen=True)
class Choice:
    """One label and what can be chosen for it.

    Parameters
    ----------
    label
        NNI's label.
    candidates
        As they stand in an NNI sample: names or values; for an ``InputChoice``, lists of input numbers.
    inputs
        Number of inputs of an ``InputChoice``, else ``None``.
    """

    label: str
    candidates: tuple[Any, ...]
    inputs: int | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def index(self, value: Any) -> int:
        """Return the number of a candidate.

        Raises
        ------
        SampleError
            It is none.
        """
        wanted = sorted(value) if self.inputs is not None and isinstance(value, (list, tuple)) else value
        for number, candidate in enumerate(self.candidates):
            if type(candidate) is type(wanted) and candidate == wanted:
                return number
        raise SampleError(
            f"Label `{self.label}` has no candidate {value!r}.{did_you_mean(value, map(str, self.candidates))}"
        )

    @cached_property
    def _rows(self) -> list[list[float]]:
        if self.inputs is None:
            return [[float(row == column) for column in range(len(self))] for row in range(len(self))]
        return [[float(one in subset) for one in range(self.inputs)] for subset in self.candidates]

    @property
    def members(self) -> Tensor:  # candidates n
        """Which inputs each candidate of an ``InputChoice`` holds; of other choices, one-hot rows.

        Examples
        --------
        >>> Choice("inputs", ([0, 1], [0, 2]), inputs=3).members
        tensor([[1., 1., 0.],
                [1., 0., 1.]])
        """
        return torch.tensor(self._rows)

    def shares_of(self, value: Any) -> Tensor:  # n
        """Return the shares of one candidate: one-hot; the inputs that are chosen, for an ``InputChoice``.

        Examples
        --------
        >>> Choice("op", ("a", "b", "c")).shares_of("b")
        tensor([0., 1., 0.])
        >>> Choice("inputs", ([0, 1], [0, 2], [1, 2]), inputs=3).shares_of([0, 2])
        tensor([1., 0., 1.])
        """
        return torch.tensor(self._rows[self.index(value)])


class Choices(dict[str, Choice]):
    """Choices by label, with NNI's constraints on what they may be together.

    Parameters
    ----------
    choices
        By label, in the order in which they are drawn.
    constraints
        NNI's, over these labels.

    Examples
    --------
    >>> import nni
    >>> from nni.mutable import ExpressionConstraint, MutableList
    >>> width, depth = nni.choice("width", [8, 16]), nni.choice("depth", [1, 2])
    >>> choices = choices_of(MutableList([width, depth, ExpressionConstraint(width * depth < 32, label="size")]))
    >>> list(choices), choices.broken({"width": 16, "depth": 1}), choices.broken({"width": 16, "depth": 2}).label
    (['width', 'depth'], None, 'size')
    """

    def __init__(self, choices: Mapping[str, Choice] | None = None, constraints: Sequence[Constraint] = ()):
        super().__init__(choices or {})
        self.constraints = tuple(constraints)

    def broken(self, sample: Mapping[str, Any]) -> Constraint | None:
        """Return a constraint that a sample breaks, if there is one."""
        return next((one for one in self.constraints if not one.contains(dict(sample))), None)

    @cached_property
    def growth(self) -> Growth:
        """How beginnings of architectures grow while they can keep the constraints."""
        candidates = {label: choice.candidates for label, choice in self.items()}
        return Growth(candidates, *read(self.constraints, candidates))

    @cached_property
    def allowed(self) -> Allowed:
        """All ways in which they can."""
        return Allowed(self.growth)

    def __getstate__(self) -> dict[str, Any]:
        return {"constraints": self.constraints}  # the rest follows, and cannot be pickled


def choices_of(space: Mutable) -> Choices:
    """Return the choices of a model space, by label, and its constraints.

    Parameters
    ----------
    space
        Any mutable of NNI's; it stays as it is.

    Raises
    ------
    SpaceError
        A mutable is not categorical, chooses inputs in more than 4096 ways, or leaves open how many; or one label
        stands at two places with other candidates at each.

    Examples
    --------
    >>> import nni
    >>> choices_of(nni.choice("width", [8, 16]))
    {'width': Choice(label='width', candidates=(8, 16), inputs=None)}
    """
    leaves = _leaves_of(space)
    constraints = [one for one in leaves.values() if isinstance(one, Constraint)]
    chosen = {label: one for label, one in leaves.items() if not isinstance(one, MutableAnnotation)}
    return Choices({label: _choice(label, one) for label, one in chosen.items()}, constraints)


def _leaves_of(space: Mutable) -> dict[str, Any]:
    """Return NNI's mutables by label; NNI says of two different ones of one label that they differ, and not in what."""
    try:
        return space.simplify()
    except ValueError as error:
        known: dict[str, Any] = {}
        for one in space.leaf_mutables(lambda one: isinstance(one, MutableSymbol)):
            other = known.setdefault(one.label, one)
            if isinstance(one, Categorical) and not one.equals(other):
                raise SpaceError(
                    f"Label `{one.label}` stands at two places with other candidates at each: {list(other.values)} and "
                    f"{list(one.values)}. Give each place a label of its own, or the same candidates at both, in the "
                    f"same order."
                ) from error
        raise


def _choice(label: str, mutable: Any) -> Choice:
    if isinstance(mutable, Categorical):
        return Choice(label, tuple(mutable.values))
    if isinstance(mutable, CategoricalMultiple) and mutable.n_chosen is not None:
        count = math.comb(len(mutable.values), mutable.n_chosen)
        if count > MOST_CANDIDATES:
            raise SpaceError(
                f"Label `{label}` chooses {mutable.n_chosen} of {len(mutable.values)} inputs: {count} combinations, "
                f"more than {MOST_CANDIDATES}. Choose fewer, or split it into several choices."
            )
        subsets = itertools.combinations(mutable.values, mutable.n_chosen)
        return Choice(label, tuple(list(subset) for subset in subsets), inputs=len(mutable.values))
    if isinstance(mutable, CategoricalMultiple):
        raise SpaceError(f"Label `{label}` leaves open how many it chooses (`n_chosen=None`). Give a number.")
    raise SpaceError(
        f"Label `{label}` is a {type(mutable).__name__}, which is not supported: only choices among candidates are "
        f"(`LayerChoice`, `InputChoice`, `Repeat`, `Cell`, `nni.choice`)."
    )


def check_sample(sample: Mapping[str, Any], choices: Mapping[str, Choice]) -> None:
    """Check that a sample names a candidate for each label and nothing else, and keeps the constraints.

    Parameters
    ----------
    sample
        By label, as NNI has it.
    choices
        What there is to choose, as of :func:`choices_of`.

    Raises
    ------
    SampleError
        In words that name the label.

    Examples
    --------
    >>> check_sample({"op": "conv3"}, {"op": Choice("op", ("conv3", "conv5"))})
    """
    if not isinstance(sample, Mapping):
        raise SampleError(f"A sample is a mapping from labels to candidates, but a {type(sample).__name__} was given.")
    for label in sample:
        if label not in choices:
            raise SampleError(f"The space has no label `{label}`.{did_you_mean(label, choices)}")
    for label, choice in choices.items():
        if label not in sample:
            raise SampleError(f"The sample has no `{label}`; it needs a candidate for each of {list(choices)}.")
        choice.index(sample[label])
    broken = choices.broken(sample) if isinstance(choices, Choices) else None
    if broken is not None:
        raise SampleError(f"The sample {dict(sample)} breaks a constraint of the space: {broken}.")
