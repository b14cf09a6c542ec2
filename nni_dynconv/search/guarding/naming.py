"""Errors of a step, with the architecture that raised them and its candidate in their words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import CandidateError, DynConvError
from ...generation import unasked_in
from .blame import candidate_of, module_of, site_of

__all__ = ["Sample", "in_words", "named"]

Sample = Mapping[str, Any]


def named(error: Exception, place: str, sample: Sample, space: nn.Module, own_stay: bool) -> Exception:
    """Return an error that names the architecture and, where the supernet raised it, the candidate.

    Parameters
    ----------
    place
        Which step it is.
    own_stay
        Whether an error that no candidate is to blame for stays as it is: it is the evaluator's own.
    """
    unasked = unasked_in(error)
    if unasked is not None:
        return unasked
    module, site = module_of(error, space), site_of(error)
    if module is None and site is None and own_stay:
        return error
    where = f"site `{site}`" if site is not None else "outside of its sites"
    where = where if module is None else candidate_of(space, module)
    return in_words(error, f"{place}, architecture {dict(sample)}, {where}")


def in_words(error: Exception, said: str) -> Exception:
    """Return an error that says besides where it was raised: of ours the same class, else a ``CandidateError``."""
    if isinstance(error, DynConvError):
        found: Exception = type(error)(f"{error}\n({said})")
    else:
        found = CandidateError(
            f'{said}: {type(error).__name__}: {error}\n`on_error="skip"` leaves out what raises, and the search '
            f"goes on."
        )
    found.__cause__ = error
    return found
