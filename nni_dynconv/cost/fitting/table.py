"""What was picked for each site, as data, and as a table."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import Recipe
from ..tables import milliseconds, printed, told

__all__ = ["Fitted", "SiteFitted"]


@dataclass(frozen=True)
class SiteFitted:
    """What was picked for a site.

    Parameters
    ----------
    site
        Its name.
    recipe
        What was picked.
    static, price
        Estimated seconds of a training step: of its op with ordinary weights; and what making weights by the recipe,
        and using them, adds to that.
    allowed
        What it might add.
    runs
        Whether its op was seen to run: one that was not has the cheapest recipe.
    """

    site: str
    recipe: Recipe
    static: float
    price: float
    allowed: float
    runs: bool = True


@dataclass(frozen=True)
class Fitted:
    """What was picked for the sites of a network.

    Parameters
    ----------
    budget
        How many times the static step weights may add.
    sites
        All that were left open.
    """

    budget: float
    sites: tuple[SiteFitted, ...]

    def __str__(self) -> str:
        title = f"recipes by `delta='auto'`, making_budget={self.budget:g}"
        heads = ("site", "base", "delta", "static", "adds", "allowed")
        return printed(title, heads, [_row(one) for one in self.sites], right=3)


def _row(one: SiteFitted) -> tuple[str, ...]:
    times = [milliseconds(spent) if one.runs else "never ran" for spent in (one.static, one.price, one.allowed)]
    return one.site, *told(one.recipe), *times
