"""The table of a comparison: as data, as JSON, and to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from pydantic_core import to_json

from ...files import write_atomically
from ...generation import DynamicNetwork
from ...runs import Run

__all__ = ["Comparison", "Entry"]

WENT_ON, FOUND, TWIN, RANDOM, SHUFFLED = "went on", "found", "static twin", "random", "shuffled contexts"
WORDS = {
    WENT_ON: "what was found, trained on from its generated weights",
    FOUND: "what was found, from scratch",
    TWIN: "its static twin: learned weights",
    SHUFFLED: "what was found, shown others' contexts",
}
WORTH = {
    RANDOM: "The search itself, against the mean of {count} random architectures",
    TWIN: "Generated weights, against learned ones in the same structure",
    SHUFFLED: "A sample's own context, against another's",
}


class Entry(NamedTuple):
    """One network of a comparison.

    Parameters
    ----------
    kind
        ``went on``, ``found``, ``static twin``, ``random`` or ``shuffled contexts``.
    architecture
        NNI's sample.
    metrics
        What was measured of it, by name.
    multiply_adds
        For one sample, all that runs: encoder and controller too; ``None`` where one alone could not be run.
    parameters
        That are stored.
    seconds
        Of its training.
    epochs
        Of the same.
    """

    kind: str
    architecture: dict[str, Any]
    metrics: dict[str, float]
    multiply_adds: int | None
    parameters: int
    seconds: float
    epochs: int


@dataclass(frozen=True)
class Comparison:
    """What a search was worth.

    Parameters
    ----------
    entries
        What was found and went on is the first.
    metrics
        Which numbers count, by the names that the evaluator logs.
    mode
        ``min`` or ``max``: which of them are good.
    measured_on
        ``test`` batches, or, where the evaluator gives none, the ``validation`` ones.
    left_out
        What could not be compared, and why.
    twin
        The trained static twin, where there is one.
    """

    entries: Sequence[Entry]
    metrics: Sequence[str]
    mode: str
    measured_on: str
    left_out: Sequence[str] = ()
    twin: DynamicNetwork | None = None

    def of(self, kind: str) -> list[Entry]:
        """Return the entries of a kind."""
        return [one for one in self.entries if one.kind == kind]

    def gain(self, kind: str, metric: str) -> float | None:
        """Return how much better what was found is than a kind, both trained from scratch; of several, than their mean.

        ``None`` where one of the two is missing.
        """
        found, others = ([one.metrics[metric] for one in self.of(which)] for which in (FOUND, kind))
        if not found or not others:
            return None
        gain = found[0] - sum(others) / len(others)
        return gain if self.mode == "max" else -gain

    def to_json(self) -> str:
        """Return everything as JSON; what is no number is ``null``."""
        worth = {kind: {metric: self.gain(kind, metric) for metric in self.metrics} for kind in WORTH}
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "twin"}
        plain = {**told, "entries": [one._asdict() for one in self.entries], "worth": worth}
        return to_json(plain, indent=2, inf_nan_mode="null").decode()

    def write(self, run: Run) -> None:
        """Write it into a run's folder, as data and to read."""
        write_atomically(run.table, f"{self.to_json()}\n".encode())
        write_atomically(run.table.with_suffix(".txt"), f"{self}\n".encode())

    def __str__(self) -> str:
        return "\n".join([*self._head(), *map(self._row, self.entries), *self._worth(), *self.left_out])

    def _head(self) -> Iterator[str]:
        if self.measured_on == "validation":
            yield (
                "No test batches: these are measured on the validation batches, which chose architecture and epoch, so "
                "what was found looks better than it is. Give the evaluator `test_dataloaders`."
            )
        yield f"Compared, on {self.measured_on} batches; from scratch all take the same steps on the same data:"
        metrics = "".join(f"{name:>{self._width(name)}}" for name in self.metrics)
        yield f"  {'':<56}{metrics}{'multiply-adds':>16}{'parameters':>12}{'seconds':>9}"

    def _row(self, one: Entry) -> str:
        words = WORDS.get(one.kind) or f"random: {', '.join(map(str, one.architecture.values()))}"
        words = words if len(words) <= 54 else f"{words[:51]}..."
        metrics = "".join(f"{one.metrics[name]:>{self._width(name)}.4f}" for name in self.metrics)
        cost = "" if one.multiply_adds is None else f"{one.multiply_adds:,}"
        return f"  {words:<56}{metrics}{cost:>16}{one.parameters:>12,}{one.seconds:>9.1f}"

    def _worth(self) -> Iterator[str]:
        for kind, words in WORTH.items():
            count = len(self.of(kind))
            if self.gain(kind, self.metrics[0]) is not None:
                gains = ", ".join(_better(self.gain(kind, name), name) for name in self.metrics)
                yield f"{words.format(count=count)}: {gains}"

    @staticmethod
    def _width(name: str) -> int:
        return max(len(name) + 2, 12)


def _better(gain: float | None, metric: str) -> str:
    if gain is None:
        return f"{metric} unknown"
    return f"{'better' if gain >= 0 else 'WORSE'} by {abs(gain):.4f} {metric}"
