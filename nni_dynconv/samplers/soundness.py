"""What keeps a sampler's parameters finite: what it is told, the gradients that reach it, and what it draws from."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import LearningError, NotFiniteError

__all__ = ["GradientWatch", "at_least_float32", "check_logits", "check_reward", "objection_to", "warn_of_reward"]

LARGEST_REWARD = 1e30
"""Of larger ones the moving averages of float32 would be no numbers, and so would be all that is learned by them."""
STEPS = 100
"""Gradients that parameters get without ever changing, before a user is told that no optimizer has them."""


def objection_to(reward: float) -> str | None:
    """Return why a reward can teach nothing, in words that its number comes before; ``None`` where it can.

    Examples
    --------
    >>> objection_to(float("nan")), objection_to(-1e39), objection_to(0.5)
    ('is not a finite number', 'is larger than 1e+30, the most that a sampler can average', None)
    """
    try:
        value = float(reward)
    except OverflowError:  # an integer of hundreds of digits
        value = LARGEST_REWARD * (10 if reward > 0 else -10)
    if not math.isfinite(value):
        return "is not a finite number"
    if abs(value) > LARGEST_REWARD:
        return f"is larger than {LARGEST_REWARD:g}, the most that a sampler can average"
    return None


def check_reward(sampler: object, reward: object) -> None:
    """Refuse what is no number at all, such as the mapping that a trial reports: nobody could learn from it.

    Raises
    ------
    LearningError
        It is text, a mapping, or of another type that is no real number.
    """
    if not _is_number(reward):
        raise LearningError(
            f"`{type(sampler).__name__}.observe` takes a reward that is one real number, higher is better, but got a "
            f"{type(reward).__name__}: {reprlib.repr(reward)}. Give `float(...)` of what was measured."
        )


def warn_of_reward(sampler: object, sample: Mapping[str, Any], reward: float, objection: str) -> None:
    """Say that a reward teaches nothing, and why."""
    warnings.warn(
        f"The reward {_briefly(reward)} of architecture {dict(sample)} {objection}: {type(sampler).__name__} learns "
        f"nothing from it.",
        stacklevel=4,
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError, RuntimeError):  # torch's, of a tensor of several values
        return False
    return True


def _briefly(reward: float) -> str:
    try:
        return f"{float(reward):g}"
    except OverflowError:
        return "of more than 300 digits"


def check_logits(sampler: object, label: str, logits: Tensor) -> Tensor:
    """Return logits that can be drawn from.

    Raises
    ------
    NotFiniteError
        They are no finite numbers.
    """
    if not math.isfinite(float(logits.detach().sum())) and not logits.isfinite().all():  # the sum is one cheap look
        raise NotFiniteError(
            f"{type(sampler).__name__} cannot choose: the logits of label `{label}` are {logits.tolist()}. A step of "
            f"its optimizer was too large, or its state was saved so. Restore an earlier one (`load_state_dict`), and "
            f"lower its learning rate."
        )
    return logits


def at_least_float32(converted: Tensor, before: Tensor) -> Tensor:
    """Return a converted tensor, in the precision it had before where that was lost.

    In 16 bits a logit near 1 does not move by a step of 0.003, and a moving average not at all.

    >>> at_least_float32(torch.zeros(1).half(), torch.zeros(1)).dtype
    torch.float32
    """
    if converted.is_floating_point() and converted.element_size() < 4 <= before.element_size():
        return before.to(converted.device)
    return converted


class GradientWatch:
    """Refuses gradients that would leave no finite numbers, in the backward, where nothing has changed yet.

    Parameters
    ----------
    sampler
        Its class is named in the errors.
    """

    def __init__(self, sampler: object):
        self.name = type(sampler).__name__
        self.asleep = self.scaled = self.optimized = False
        self.steps = 0  # that brought gradients since the parameters were looked at
        self._reached = False
        self._seen: Tensor | None = None  # what they were then

    def watch(self, parameters: Mapping[str, Tensor]) -> None:
        """Look at the gradients of parameters, by what an error calls them, that are not looked at yet."""
        for words, parameter in parameters.items():
            if not parameter._backward_hooks:
                parameter.register_hook(self._looking_at(words))

    def _looking_at(self, words: str) -> Callable[[Tensor], None]:
        @torch.utils.hooks.unserializable_hook  # a copy, and who reads a file, watches anew
        def look(gradient: Tensor) -> None:
            self._reached = True
            if self.asleep or self.scaled:
                return
            flat = gradient.flatten()
            if math.isfinite(float(flat.dot(flat))):  # Adam keeps the squares
                return
            raise NotFiniteError(
                f"The gradient of {words} of {self.name} is {gradient.tolist()}: it would never choose by finite "
                f"numbers again. The loss is no finite number, or too large; nothing has changed yet. Leave this step "
                f"out (`optimizer.zero_grad()`), lower the learning rate or clip gradients."
            )

        return look

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """For a block, leave gradients to whoever knows more of the step, such as the strategy."""
        before, self.asleep = self.asleep, True
        try:
            yield
        finally:
            self.asleep, self._reached = before, False

    def say_unused(self, parameters: Mapping[str, Tensor]) -> None:
        """Warn once where parameters got many gradients and never changed: no optimizer has them."""
        self.steps, self._reached = self.steps + self._reached, False
        if not parameters or self.optimized or (self._seen is not None and self.steps < STEPS):
            return
        now = torch.cat([one.detach().flatten().double().cpu() for one in parameters.values()])
        if self._seen is None or not torch.equal(now, self._seen):
            self._seen, self.steps = now, 0
            return
        self.optimized = True
        warnings.warn(
            f"{self.name} got the gradients of {STEPS} steps and never changed: no optimizer has its parameters, so it "
            f"draws as at the start. Step the optimizer of `sampler.optimizer()` on held-out batches.",
            stacklevel=4,
        )
