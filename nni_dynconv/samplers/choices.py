"""Labels and candidates of a space, read off NNI's own ``simplify()``; no network and no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.mutable import Categorical, CategoricalMultiple, Mutable

from ..errors import SampleError, SpaceError, did_you_mean

__all__ = ["Choice", "check_sample", "choices_of"]

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


def choices_of(space: Mutable) -> dict[str, Choice]:
    """Return the choices of a model space, by label.

    Raises
    ------
    SpaceError
        A mutable is not categorical, or has more than 4096 candidates.
    """
    return {label: _choice(label, mutable) for label, mutable in space.simplify().items()}


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
    """Check that a sample names a candidate for each label and nothing else.

    Raises
    ------
    SampleError
        In words that name the label.
    """
    for label in sample:
        if label not in choices:
            raise SampleError(f"The space has no label `{label}`.{did_you_mean(label, choices)}")
    for label, choice in choices.items():
        if label not in sample:
            raise SampleError(f"The sample has no `{label}`; it needs a candidate for each of {list(choices)}.")
        choice.index(sample[label])
