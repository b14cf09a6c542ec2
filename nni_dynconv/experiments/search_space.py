"""A model space as NNI's ``searchSpace``, for plain NNI tuners, and a tuner's proposal as a sample of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import SampleError, SpaceError, did_you_mean
from ..samplers import Choice, choices_of

__all__ = ["sample_of", "search_space_of"]


def search_space_of(space: Any) -> dict[str, dict[str, Any]]:
    """Return ``{label: {"_type": "choice", "_value": [...]}}``: what NNI's tuners choose from.

    Parameters
    ----------
    space
        A model space, before or after a mutator has it.

    Raises
    ------
    SpaceError
        It has something to choose that is no choice among candidates, or two candidates that are written alike.

    Notes
    -----
    The labels stand side by side, as in an NNI sample. A label inside a candidate of another is proposed also where
    that candidate is not chosen, and means nothing then; NNI's tuners learn that it does not matter.

    NNI's tuners want numbers and strings. Other candidates (the inputs of an ``InputChoice``, ``None``) are written as
    JSON: ``"[0, 2]"``.
    """
    return {label: {"_type": "choice", "_value": _all_written(choice)} for label, choice in choices_of(space).items()}


def sample_of(space: Any, proposal: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sample that a tuner's proposal stands for: what ``freeze`` and ``using`` take.

    Parameters
    ----------
    space
        The model space that :func:`search_space_of` was called with.
    proposal
        What ``nni.get_next_parameter()`` gave: a value for each label. Other keys, such as hyper-parameters that you
        added to the search space by hand, are left out.

    Raises
    ------
    SampleError
        A label is missing, or its value is none of its candidates.
    """
    choices = choices_of(space)
    for label in choices:
        if label not in proposal:
            raise SampleError(f"The proposal has no `{label}`; it has {list(proposal)}.{_other_space(label, proposal)}")
    return {label: _candidate(choice, proposal[label]) for label, choice in choices.items()}


def _other_space(label: str, proposal: Mapping[str, Any]) -> str:
    hint = did_you_mean(label, proposal)
    return hint if hint.startswith(" Did") else " Make the search space anew: `nni-dynconv space`."


def _all_written(choice: Choice) -> list[Any]:
    written = [_written(candidate) for candidate in choice.candidates]
    seen: dict[str, Any] = {}
    for candidate, one in zip(choice.candidates, written, strict=True):
        told = json.dumps(int(one) if isinstance(one, float) and one.is_integer() else one)  # as NNI's manager does
        if told in seen:
            raise SpaceError(
                f"Label `{choice.label}` has the candidates {seen[told]!r} and {candidate!r}, and both are {told} in "
                f"NNI's `searchSpace`: a proposal could not tell which. Change one of them."
            )
        seen[told] = candidate
    return written


def _written(candidate: Any) -> Any:
    return candidate if isinstance(candidate, (str, int, float)) else json.dumps(candidate)


def _candidate(choice: Choice, value: Any) -> Any:
    """The candidate of a value, which NNI's manager may have written ``1`` for ``1.0``."""
    written = [_written(candidate) for candidate in choice.candidates]
    equal = [place for place, one in enumerate(written) if one == value]
    places = [place for place in equal if type(written[place]) is type(value)]
    places += [place for place in equal if type(written[place]) is float and type(value) is int]
    if not places:
        raise SampleError(f"Label `{choice.label}` has no candidate {value!r}.{did_you_mean(value, map(str, written))}")
    return choice.candidates[places[0]]
