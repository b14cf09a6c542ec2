"""What one training step has taken, as data, and as a table."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import Recipe
from ..tables import milliseconds, printed, told

__all__ = ["Explanation", "SiteTaken"]


@dataclass(frozen=True)
class SiteTaken:
    """What one site has taken of a step.

    Parameters
    ----------
    site
        Its name.
    recipe
        What its weights are made of.
    path, why
        How :mod:`nni_dynconv.functional` computed its op, and the reason; more than one where weights are given by
        parts, or several calls make the op. Empty for an op with one way only, such as a normalisation.
    runs
        How often its op ran.
    making, using
        Seconds of its weights, and of its op with them, forward and backward. Sites that are made in one call share it
        by their values.
    memory
        Bytes that its forward has left: its weights, its output, and what the backward needs of both.
    """

    site: str
    recipe: Recipe
    path: str
    why: str
    runs: int
    making: float
    using: float
    memory: int

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.making + self.using


@dataclass(frozen=True)
class Explanation:
    """What one training step has taken: forward, backward, and nothing beyond.

    Parameters
    ----------
    batch
        Samples.
    controller
        Its class, or ``None``.
    sites
        In the order in which they ran.
    encoding
        Seconds of the context's encoder, and of opening the forward.
    elsewhere
        Seconds of all that is no site's: other layers, the loss.
    """

    batch: int
    controller: str | None
    sites: tuple[SiteTaken, ...]
    encoding: float
    elsewhere: float

    @property
    def seconds(self) -> float:
        """Of the step."""
        return self.encoding + self.elsewhere + sum(one.seconds for one in self.sites)

    @property
    def making(self) -> float:
        """Seconds of making weights, the context's encoder among them."""
        return self.encoding + sum(one.making for one in self.sites)

    def share(self, seconds: float) -> float:
        """Return which share of the step some seconds are."""
        return seconds / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        title = (
            f"a training step of {self.batch} samples: {1e3 * self.seconds:.4g} ms, of which making weights "
            f"({self.controller or 'no controller'}) takes {self.share(self.making):.0%}"
        )
        rows = [self._row(one) for one in self.sites]
        for name, spent in (("(context)", self.encoding), ("(elsewhere)", self.elsewhere)):
            rows.append((name, "", "", "", "", milliseconds(spent), f"{self.share(spent):.0%}", "", ""))
        heads = ("site", "base", "delta", "path", "making", "using", "share", "memory")
        return printed(title, heads, rows, right=4, last="why")

    def _row(self, one: SiteTaken) -> tuple[str, ...]:
        runs = f" x{one.runs}" if one.runs > 1 else ""
        times = milliseconds(one.making), milliseconds(one.using), f"{self.share(one.seconds):.0%}"
        return (
            one.site + runs, *told(one.recipe), one.path or "-", *times,
            f"{one.memory / 1e6:.1f} MB", one.why,
        )  # fmt: skip
