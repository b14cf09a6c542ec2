"""What runs in a forward: the labels' gates and shares, of an architecture that was drawn, or of one that is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import ScopeError
from ..generation import Decision, Shares
from ..samplers import Choice, Sampler
from ..sites import Gate, Site

__all__ = ["Draw", "Drawn", "Draws", "given", "shares_of"]

Choices = Mapping[str, Choice]
Sample = Mapping[str, Any]


def given(choices: Choices, sample: Sample, sites: Sequence[Site]) -> Decision:
    """Return the decision for one architecture: each label has one value, and no factor."""
    return Decision(sample, lambda label: Gate(_values(sample[label])), sites, shares_of(choices, sample))


def shares_of(choices: Choices, sample: Sample) -> Shares:
    """Return how much of each candidate of a label takes part in one architecture."""
    return lambda label: choices[label].shares_of(sample[label])


class Draws:
    """Counts what a mutator has drawn; a copy of it counts its own."""

    count = 0


class Draw:
    """Whose draw an architecture is, and which: by it a copy knows that the one it was copied from has gone on.

    Parameters
    ----------
    draws
        Of the mutator that drew; ``None`` where that is in another process.
    """

    def __init__(self, draws: Draws | None = None):
        self.draws, self.number = draws, 0 if draws is None else draws.count

    def __deepcopy__(self, memo: dict[int, Any]) -> Draw:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Draw, ()

    def is_over(self, own: Draws) -> bool:
        """Whether it is of another mutator than the one that counts ``own``, which has drawn anew since."""
        return self.draws is not None and self.draws is not own and self.draws.count != self.number


class Drawn:
    """What a sampler lets run of the architecture that it drew, and with which factors.

    Parameters
    ----------
    choices
        By label.
    sampler
        It mixes all candidates (DARTS), scales the drawn one (GDAS), or does neither.
    sample
        What it drew.
    latest
        Returns what it drew last: factors of another draw are no longer this one's.
    """

    def __init__(self, choices: Choices, sampler: Sampler, sample: Sample, latest: Callable[[], Sample | None]):
        self.choices, self.sampler, self.sample, self.latest = choices, sampler, sample, latest

    def decision(self, sites: Sequence[Site]) -> Decision:
        """Return the decision for these sites; of a mixture no single architecture is known."""
        return Decision(None if self.sampler.mixes else self.sample, self.gate, sites, self.shares)

    def gate(self, label: str) -> Gate:
        """Return which candidates of a label run, or inputs, and with which factors."""
        choice, weights = self.choices[label], self._relaxed(label)
        if not self.sampler.mixes:
            values = _values(self.sample[label])
            factor = None if weights is None else weights[choice.index(self.sample[label])].expand(len(values))
            return Gate(values, factor)
        if choice.inputs is None or weights is None:
            return Gate(choice.candidates, weights)
        return Gate(range(choice.inputs), weights @ choice.members.to(weights))

    def shares(self, label: str) -> Tensor:
        """Return how much of each candidate, or input, takes part: with gradient where the sampler learns by it."""
        choice, weights = self.choices[label], self._relaxed(label)
        if weights is None:
            return choice.shares_of(self.sample[label])
        return weights if choice.inputs is None else weights @ choice.members.to(weights)

    def _relaxed(self, label: str) -> Tensor | None:
        weights = self.sampler.relaxed(label)
        if weights is not None and not self.sampler.mixes and self.sample is not self.latest():
            raise ScopeError(
                "`mutator.reset()` was called between a forward and the backward that runs it again (activation "
                "checkpointing). Call `backward()` first."
            )
        return weights


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
