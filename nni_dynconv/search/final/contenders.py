"""Architectures with their losses and costs, the front among them, and which of it is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ...errors import RankError
from ..ranking.contest import Sample
from .fronts import fronts

__all__ = ["Compared", "Contender", "table"]


class Contender(NamedTuple):
    """An architecture that was measured.

    Parameters
    ----------
    sample
        NNI's.
    loss
        On held-out batches, with the supernet's weights; no number where it raised.
    costs
        By name; lower is better.
    """

    sample: Sample
    loss: float
    costs: Mapping[str, float] = {}


@dataclass(frozen=True)
class Compared:
    """What was compared.

    Parameters
    ----------
    contenders
        In the order in which they were measured.
    objectives
        Names of the costs that count besides the loss.

    Examples
    --------
    >>> costs = [1.0, 2.0, 3.0, 4.0]
    >>> losses = [0.9, 0.5, 0.6, 0.4]
    >>> found = [Contender({"width": int(c)}, loss, {"seconds": c}) for c, loss in zip(costs, losses)]
    >>> compared = Compared(found, ("seconds",))
    >>> [one.sample["width"] for one in compared.front], compared.best_first("knee")[0].sample
    ([4, 2, 1], {'width': 2})
    """

    contenders: Sequence[Contender]
    objectives: tuple[str, ...] = ()

    def points(self) -> list[tuple[float, ...]]:
        """Return loss and objectives of each; of one without a loss, nothing that could be better than another."""
        worst = (math.inf,) * (1 + len(self.objectives))
        return [
            worst if math.isnan(one.loss) else (one.loss, *(one.costs[name] for name in self.objectives))
            for one in self.contenders
        ]

    @property
    def front(self) -> list[Contender]:
        """Those that no other is better than in loss or an objective and as good in the rest, by rising loss."""
        numbered = zip(self.contenders, fronts(self.points()), strict=True)
        kept = [one for one, number in numbered if number == 0 and math.isfinite(one.loss)]
        return sorted(kept, key=lambda one: one.loss)

    def surcharges(self, pick: Literal["loss", "knee"], importance: Mapping[str, float] | None = None) -> list[float]:
        r"""Return what the costs of each add to its loss when one is picked.

        .. math:: l_0 \sum_o w_o c_o / r_o

        for the ``knee``, with the front's spread of losses ``l_0`` and of each cost ``r_o``; nothing for the ``loss``.
        With all weights at 1 the lowest sum is the point of the front that bulges farthest from the plane through its
        ends.

        Parameters
        ----------
        importance
            Weights by name; 1 where it has none.

        References
        ----------
        Das, On characterizing the "knee" of the Pareto curve based on normal-boundary intersection, Structural
        Optimization 18, 1999.
        """
        if pick == "loss":
            return [0.0] * len(self.contenders)
        front = self.front
        unit = _spread([one.loss for one in front]) or 1.0
        weights = {name: (importance or {}).get(name, 1.0) for name in self.objectives}
        spreads = {name: _spread([one.costs[name] for one in front]) for name in self.objectives}
        rates = {name: unit * weights[name] / spread for name, spread in spreads.items() if spread}
        return [sum(rate * one.costs[name] for name, rate in rates.items()) for one in self.contenders]

    def ranked(
        self, pick: Literal["loss", "knee"], importance: Mapping[str, float] | None = None
    ) -> list[tuple[Contender, float]]:
        """Return the contenders with a loss and their surcharges, the lowest sum first, of equal ones the cheapest.

        Raises
        ------
        RankError
            None has a loss that is a finite number.
        """
        pairs = zip(self.contenders, self.surcharges(pick, importance), strict=True)
        finite = [(one, more) for one, more in pairs if math.isfinite(one.loss)]
        if not finite:
            raise RankError(
                f"None of {len(self.contenders)} architectures has a finite held-out loss: the training has diverged. "
                f"Lower the learning rate or clip gradients (`gradient_clip_val`)."
            )
        finite.sort(key=lambda pair: (pair[0].loss + pair[1], *(pair[0].costs[name] for name in self.objectives)))
        return finite

    def best_first(
        self, pick: Literal["loss", "knee"], importance: Mapping[str, float] | None = None
    ) -> list[Contender]:
        """Return the contenders as :meth:`ranked` has them, without surcharges."""
        return [one for one, _ in self.ranked(pick, importance)]

    def rows(self) -> list[dict[str, Any]]:
        """Return the front as plain data: ``architecture``, ``loss``, and each objective by its name."""
        return [
            {
                "architecture": {str(label): value for label, value in one.sample.items()},
                "loss": one.loss,
                **{name: one.costs[name] for name in self.objectives},
            }
            for one in self.front
        ]

    def __str__(self) -> str:
        return table(self.rows())


def table(rows: Sequence[Mapping[str, Any]], exported: Mapping[str, Any] | None = None) -> str:
    """Return a front as a table; a star stands before the exported architecture, if it is on it.

    Examples
    --------
    >>> print(table([{"architecture": {"op": "conv3"}, "loss": 0.25, "seconds": 0.5}], {"op": "conv3"}))
                 loss        seconds  architecture
    *            0.25            0.5  op = conv3
    """
    names = [name for name in rows[0] if name != "architecture"] if rows else ["loss"]
    lines = [f" {''.join(f'{name:>15}' for name in names)}  architecture"]
    for one in rows:
        words = ", ".join(f"{label} = {value}" for label, value in one["architecture"].items())
        star = "*" if one["architecture"] == exported else " "
        lines.append(f"{star}{''.join(f'{one[name]:>15.4g}' for name in names)}  {words}")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0
