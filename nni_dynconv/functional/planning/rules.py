"""Which path computes a call: by the rules of its kind, or as ``tune`` measured it on this machine."""

from __future__ import annotations

from types import ModuleType

from . import blocks, composed, convolutions, linear, patches
from .problem import Choice, Problem
from .tuning import recall

__all__ = ["choose", "possible"]

APART = Choice("bias_apart", "the bias has other sets than the weight: it is added afterwards")


def choose(problem: Problem) -> Choice:
    """Pick the path of a call, and say why.

    Examples
    --------
    >>> import torch
    >>> from .measuring import measure
    >>> from .modes import Setting
    >>> geometry = measure(2, (8, 16, 32, 32), (8, 4, 16, 1, 1), None, 1, 0, 1, 1)
    >>> choose(Problem(geometry, Setting("cpu", torch.float32, True))).path
    'matmul'
    """
    measured = None if _is_fixed(problem) else recall(problem)
    if measured is not None and measured in _kind(problem).possible(*problem):  # another version's file may differ
        return Choice(measured, "the fastest of those that `tune` measured on this machine")
    return _by_rules(problem)


def possible(problem: Problem) -> list[str]:
    """List what can compute a call, for whoever measures which is the fastest: at least what the rules pick."""
    return [_by_rules(problem).path] if _is_fixed(problem) else _kind(problem).possible(*problem)


def _by_rules(problem: Problem) -> Choice:
    return APART if problem.geometry.bias_counts is not None else _kind(problem).choose(*problem)


def _is_fixed(problem: Problem) -> bool:
    """Whether the rules alone decide."""
    geometry, setting = problem
    if geometry.grid or (not geometry.kernel and setting.parts is None):  # the shapes alone decide
        return True
    modes = setting.portable or setting.transformed or setting.deterministic
    return modes or not geometry.B or geometry.bias_counts is not None


def _kind(problem: Problem) -> ModuleType:
    """Return the rules of a kind of call."""
    geometry, setting = problem
    if setting.parts is not None:
        return composed
    if not geometry.kernel:
        return linear
    if geometry.grid:
        return patches
    return convolutions if geometry.counts is None else blocks
