"""What one training step has taken, as data, and as a table."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from ...settings import Recipe

__all__ = ["Explanation", "SiteTaken"]

WIDTH = 200


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
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
        for name in ("site", "base", "delta", "path"):
            table.add_column(name, no_wrap=True)
        for name in ("making", "using", "share", "memory"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("why", max_width=60)
        for one in self.sites:
            table.add_row(*self._row(one))
        for name, spent in (("(context)", self.encoding), ("(elsewhere)", self.elsewhere)):
            table.add_row(name, "", "", "", "", _ms(spent), f"{self.share(spent):.0%}", "", "")
        return _printed(table)

    def _row(self, one: SiteTaken) -> tuple[str, ...]:
        rank = f" {one.recipe.rank}" if one.recipe.delta == "low_rank" else ""
        runs = f" x{one.runs}" if one.runs > 1 else ""
        times = _ms(one.making), _ms(one.using), f"{self.share(one.seconds):.0%}"
        return (
            one.site + runs, one.recipe.base, one.recipe.delta + rank, one.path or "-", *times,
            f"{one.memory / 1e6:.1f} MB", one.why,
        )  # fmt: skip


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


def _printed(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())
