"""Numbers of a step that are none: losses, gradients and parameters, and what is to blame for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import NotFiniteError
from .blame import first_not_finite
from .naming import Sample

__all__ = ["check_parameters", "objection", "squares_are_finite"]


def objection(
    loss: Any, place: str, sample: Sample, space: nn.Module, again: Callable[[], Any] | None = None
) -> NotFiniteError | None:
    """Return the error of a loss that is no finite number, with what is to blame, or ``None``.

    Parameters
    ----------
    loss
        Of an architecture; ``None`` where the evaluator leaves the step out itself.
    again
        Runs the forward once more.
    """
    if loss is None or math.isfinite(value := float(torch.as_tensor(loss).detach())):
        return None
    blame = "" if again is None else _blame(space, again)
    return NotFiniteError(
        f"{place}: the loss of architecture {dict(sample)} is {value:g}.{blame} Nothing was learned from it. Lower "
        f'the learning rate or clip gradients (`gradient_clip_val`); `on_not_finite="skip"` leaves such steps out.'
    )


def _blame(space: nn.Module, again: Callable[[], Any]) -> str:
    broken = _not_finite(space)
    if broken is not None:
        return f" The parameter `{broken}` holds numbers that are not finite."
    return first_not_finite(space, again)


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


def squares_are_finite(gradient: Tensor | None) -> bool:
    """Whether a gradient's norm is a finite number, or there is none."""
    return gradient is None or math.isfinite(float(gradient.norm()))


def _not_finite(module: nn.Module) -> str | None:
    return next((name for name, one in module.named_parameters() if not one.isfinite().all()), None)
