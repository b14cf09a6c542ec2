"""What is lost with a few sets of weights: a network measured with each number of clusters, beside what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import to_json
from torch import nn

from ... import cost
from ...generation import Call, DynamicNetwork, Example
from .clustering import clustered, look_at

__all__ = ["Clusters", "Few", "try_clusters"]

DECIBELS, SHARE = 0.1, 0.01
"""What may be lost where nobody said: so much of a PSNR, or this part of the value that the network has."""


class Few(NamedTuple):
    """A network with a few sets of weights.

    Parameters
    ----------
    clusters
        How many.
    metrics
        What was measured of it, by name.
    faster
        How many times as fast as with its controller it is, for one sample on one thread of the CPU.
    """

    clusters: int
    metrics: Mapping[str, float]
    faster: float


@dataclass(frozen=True)
class Clusters:
    """A network with each number of clusters.

    Parameters
    ----------
    dynamic
        What was measured of the network itself, by name.
    rows
        With few sets, fewest first.
    mode
        ``min`` or ``max``: which numbers are good.
    measured_on
        Which batches.
    contexts
        How many were clustered.
    tolerance
        How much worse each number may be; ``None``: 0.1 dB of a PSNR, 1 % of the network's own value of others.
    """

    dynamic: Mapping[str, float]
    rows: Sequence[Few]
    mode: str
    measured_on: str
    contexts: int
    tolerance: float | None = None

    def gap(self, row: Few, metric: str) -> float:
        """Return how much worse a number is with few sets."""
        gap = self.dynamic[metric] - row.metrics[metric]
        return gap if self.mode == "max" else -gap

    def allowed(self, metric: str) -> float:
        """Return how much worse a number may be."""
        if self.tolerance is not None:
            return self.tolerance
        return DECIBELS if "psnr" in metric.lower() else SHARE * abs(self.dynamic[metric])

    @property
    def recommended(self) -> int | None:
        """The fewest sets with which no number is worse than is allowed; ``None`` where all are too few."""
        fit = (row for row in self.rows if all(self.gap(row, one) <= self.allowed(one) for one in self.dynamic))
        return next((row.clusters for row in fit), None)

    def to_json(self) -> str:
        """Return everything as JSON, with gaps and what is recommended; what is no number is ``null``."""
        told = asdict(self)
        told["rows"] = [
            {**row._asdict(), "gaps": {one: self.gap(row, one) for one in self.dynamic}} for row in self.rows
        ]
        told |= {"allowed": {one: self.allowed(one) for one in self.dynamic}, "recommended": self.recommended}
        return to_json(told, indent=2, inf_nan_mode="null").decode()

    def __str__(self) -> str:
        names = list(self.dynamic)
        head = [f"With few sets of weights, of {self.contexts:,} contexts, on {self.measured_on} batches:"]
        table = [["sets", *names, "one sample"], ["dynamic", *(f"{self.dynamic[one]:.4f}" for one in names), ""]]
        for row in self.rows:
            told = [f"{row.metrics[one]:.4f} ({-self.gap(row, one):+.4f})" for one in names]
            table.append([str(row.clusters), *told, f"{row.faster:.2f} times as fast"])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(one.rjust(width) for one, width in zip(row, widths, strict=True)) for row in table]
        return "\n".join([*head, *lines, self._told()])

    def _told(self) -> str:
        most = ", ".join(f"{self.allowed(one):.3g} of {one}" for one in self.dynamic)
        if self.recommended is None:
            return f"None is recommended: each loses more than is allowed, {most}."
        return f"Recommended: {self.recommended}, the fewest that lose no more than {most}."


def try_clusters(
    network: DynamicNetwork,
    contexts: Iterable[Any],
    measure: Callable[[nn.Module], Mapping[str, float]],
    example: Call,
    *,
    mode: str = "max",
    counts: Sequence[int] = (1, 2, 4, 8, 16),
    tolerance: float | None = None,
    measured_on: str = "held-out",
    seed: int = 0,
) -> tuple[Clusters, dict[int, DynamicNetwork]]:
    """Measure a network with few sets of weights in the place of its controller, and with the controller.

    Parameters
    ----------
    network, contexts, seed
        As of :func:`~nni_dynconv.export.cluster`.
    measure
        Returns the numbers that count, by name, on data that clustered nothing.
    example
        What the network is called with: for the seconds of its first sample.
    mode, tolerance, measured_on
        As of :class:`Clusters`.
    counts
        Numbers of sets; those with more than there are contexts are left out.

    Returns
    -------
    What was found, and the networks, by number of sets.

    Raises
    ------
    ContextError
        There are no contexts, or weights are made from none that is given.
    """
    seen = look_at(network, contexts)
    made = {one: clustered(network, seen, one, seed) for one in sorted(counts) if one <= len(seen.codes)}
    one = Example.of(example).drawn(1)
    own, *others = cost.by_turns([partial(_run, few, one) for few in (network, *made.values())])
    rows = [
        Few(count, dict(measure(few)), own / seconds)
        for (count, few), seconds in zip(made.items(), others, strict=True)
    ]
    return Clusters(dict(measure(network)), rows, mode, measured_on, len(seen.codes), tolerance), made


def _run(network: DynamicNetwork, call: Call) -> Any:
    more = {} if call.context is None else {"context": call.context}
    return network(*call.args, **call.kwargs, **more)
