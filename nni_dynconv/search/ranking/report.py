"""Scores of a supernet beside what training gave: as data, and as tables to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pydantic_core import to_json

from .statistics import Fidelity

__all__ = ["Row", "SupernetRanking"]


class Row(NamedTuple):
    """One architecture.

    Parameters
    ----------
    sample
        NNI's sample.
    generated
        Minus its held-out loss with generated weights.
    parameters
        Of the network, generated ones included.
    trained
        The evaluator's metric after training, turned so that higher is better; ``None`` where it was not trained.
    one_epoch
        The same after one epoch.
    synflow, jacob_cov
        Zero-cost proxies, of fresh weights; ``None`` where there are none.
    """

    sample: dict[str, Any]
    generated: float
    parameters: int
    trained: float | None = None
    one_epoch: float | None = None
    synflow: float | None = None
    jacob_cov: float | None = None


@dataclass(frozen=True)
class SupernetRanking:
    """What :func:`nni_dynconv.commands.ranking.rank` found.

    Parameters
    ----------
    rows
        The best by generated weights first.
    fidelity
        Of ``generated``, ``one_epoch``, ``parameters`` and the proxies, against training.
    seconds
        What each took.
    metric, start
        What training was measured by, and from which weights it started.
    """

    rows: list[Row]
    fidelity: dict[str, Fidelity]
    seconds: dict[str, float]
    metric: str
    start: str

    def to_json(self) -> str:
        """Return everything as JSON; what is infinite or no number is ``null``."""
        parts = {name: one._asdict() for name, one in self.fidelity.items()}
        plain = {**asdict(self), "rows": [row._asdict() for row in self.rows], "fidelity": parts}
        return to_json(plain, indent=2, inf_nan_mode="null").decode()

    def __str__(self) -> str:
        return "\n".join([*_table(self), "", *_fidelity_table(self)])


def _table(found: SupernetRanking) -> list[str]:
    lines = [f"{'generated':>10}{'one epoch':>11}{'trained':>9}{'parameters':>12}  architecture"]
    for row in found.rows:
        cells = ("" if value is None else f"{value:.4g}" for value in (row.one_epoch, row.trained))
        one_epoch, trained = cells
        words = ", ".join(f"{label} = {value}" for label, value in row.sample.items())
        lines.append(f"{row.generated:>10.4f}{one_epoch:>11}{trained:>9}{row.parameters:>12,}  {words}")
    return lines


def _fidelity_table(found: SupernetRanking) -> list[str]:
    trained = sum(row.trained is not None for row in found.rows)
    k = found.fidelity["generated"].k
    title = f"Against `{found.metric}` of {trained} architectures trained from {found.start}"
    cost = ", ".join(f"{name} {value:.0f} s" for name, value in found.seconds.items())
    head = f"{'':<12}{'tau':>7}{'95 % interval':>18}{f'top {k}':>8}{'regret':>9}"
    lines = [f"{title} ({cost}):", head]
    for name, one in found.fidelity.items():
        span = "too few" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
        lines.append(f"{name:<12}{one.tau:>7.2f}{span:>18}{one.precision:>8.2f}{one.regret:>9.4g}")
    return lines
