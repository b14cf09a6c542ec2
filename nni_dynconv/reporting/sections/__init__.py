"""The sections of a run's page, in order: each draws a part of the report, where the run has it."""

from collections.abc import Callable, Sequence

from ..data import Report
from ..html import Page
from .ending import again
from .judging import comparison, sure
from .learning import findings, trace, training
from .looking import costs, few_sets, slides, weights
from .opening import architecture, head

__all__ = ["SECTIONS"]

SECTIONS: Sequence[Callable[[Page, Report], None]] = (
    head,
    architecture,
    comparison,
    sure,
    costs,
    few_sets,
    slides,
    weights,
    trace,
    training,
    findings,
    again,
)
"""In the order of the page."""
