"""What runs in a forward, and which of its sites are made together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..ops import DynamicOp
from ..sites import Gate, Site
from .architecture import Shares

__all__ = ["Decision", "runs_of", "site_of"]

# Values made in one call of the controller. Many at a time save calls, which is nearly all that a few sets of weights
# cost; few at a time stay in the cache and live shorter, which is what many sets want. Sixteen sites of 8 to 32
# channels took 0.26 to 0.35 of the time site by site with 1 set, 0.56 to 0.91 with 32 sets; of 16 channels with 64 sets
# 0.91, and all at once 1.05. The next power of two was within the spread of the runs.
TOGETHER = 1 << 17


class Decision(NamedTuple):
    """What runs in a forward.

    Parameters
    ----------
    sample
        The architecture, where there is just one.
    gate
        What a label lets run; ``None`` where no choice is left, or where NNI's strategy decides.
    sites
        The sites that run, in order, as far as they are known.
    shares
        How much of each candidate of a label takes part, for the architecture's code.
    """

    sample: Mapping[str, Any] | None = None
    gate: Callable[[str], Gate] | None = None
    sites: Sequence[Site] = ()
    shares: Shares | None = None


def site_of(op: DynamicOp) -> Site:
    """Return the site of an op that has a name."""
    return Site(str(op.site), type(op).__name__, op.weight_specs(), op.patch_grid)


def runs_of(sites: Sequence[Site], sets: int) -> list[list[Site]]:
    """Cut a plan into runs of sites that are made in one call: up to ``TOGETHER`` values, and at least one site.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site(name, "DynamicLinear", (WeightSpec("weight", (100, 10), 10),)) for name in "abc"]
    >>> [[site.name for site in run] for run in runs_of(sites, sets=50)]
    [['a', 'b'], ['c']]
    """
    runs: list[list[Site]] = []
    room = 0
    for site in sites:
        values = sets * site.num_generated
        if not runs or values > room:
            runs.append([])
            room = TOGETHER
        runs[-1].append(site)
        room -= values
    return runs
