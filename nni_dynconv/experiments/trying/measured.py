"""What a try has measured, and how long the search will take by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...settings import BaselineSettings, RunSettings, StrategySettings
from .briefly import Clock, Plan

__all__ = ["Measured", "parts_of"]

TRIAL = "each trial"


@dataclass(frozen=True)
class Measured:
    """What a try has measured.

    Parameters
    ----------
    sample
        The architecture that went all the way.
    batch
        Samples in the batch.
    supernet, makers
        Parameters of the supernet, and those of them that make weights.
    parameters, generated
        Of the tried architecture: its parameters, and the values that are made for one context.
    multiply_adds
        Of a forward of it, for one sample, making its weights too.
    step, look
        Seconds of a training step of the search and of a validation step; ``None``: not timed.
    memory, gpu
        Most bytes that the process had, and had on the GPU; ``None`` without one.
    parts
        Seconds that parts of a trial will take, by name; empty where nobody can know.
    remarks
        What the doctor said.
    """

    sample: Mapping[str, Any]
    batch: int
    supernet: int
    makers: int
    parameters: int
    generated: int
    multiply_adds: float
    step: float | None
    look: float | None
    memory: int
    gpu: int | None
    parts: Mapping[str, float]
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        gpu = "" if self.gpu is None else f", {_bytes(self.gpu)} of the GPU"
        rows = {
            "parameters": f"{self.supernet:,} in the supernet, {self.makers:,} of them make weights; "
            f"{self.parameters:,} in the tried network, for which {self.generated:,} values are made",
            "multiply-adds": f"{_large(self.multiply_adds)} for one sample, making its weights too",
            "a step": f"{_seconds(self.step)} in training, {_seconds(self.look)} in validation",
            "memory": f"{_bytes(self.memory)} of this process{gpu}",
            "time": _parts(self.parts),
        }
        head = (
            f"Tried with a batch of {self.batch}: it trains and validates, and architecture {dict(self.sample)} reads "
            f"back equal from its files."
        )
        return [head, *(f"  {name:<15}{text}" for name, text in rows.items()), *self.remarks]


def parts_of(clock: Clock, plan: Plan, settings: RunSettings, learns: str) -> dict[str, float]:
    """Return how long the parts of a trial will take, by the seconds of a step; nothing where steps are unknown.

    Parameters
    ----------
    settings
        Of the run.
    learns
        By what the sampler learns: one that does by gradient takes half of a step.
    """
    training, validation = (_limited(*pair) for pair in zip(clock.batches, plan[2:], strict=True))
    if clock.step is None or training is None or plan.epochs is None or plan.epochs < 0:
        return {}
    look = clock.look or clock.step
    plain = clock.step / (2 if learns == "gradient" else 1)

    def epochs(count: int, step: float) -> float:
        steps = count * training if plan.steps < 0 else min(count * training, plan.steps)
        return steps * step + count * (validation or 0) * look

    if settings.mode == "multi_trial":
        return {"the checkpoint before them": epochs(plan.epochs, clock.step), TRIAL: epochs(plan.epochs, plain)}
    whole = StrategySettings(**settings.strategy)
    final = plan.epochs if whole.final_epochs is None else whole.final_epochs
    parts = {"search": epochs(plan.epochs, clock.step), **_compared(whole, learns, plain, look)}
    parts |= {"final training": epochs(final, plain)} if final else {}
    count = _baselines(settings)
    return parts | (
        {"baselines": count * epochs(_baseline_epochs(settings) or final or plan.epochs, plain)} if count else {}
    )


def _compared(whole: StrategySettings, learns: str, step: float, look: float) -> dict[str, float]:
    """Return what the comparison of architectures and their re-ranking take."""
    count = whole.evaluations if whole.final_search == "evolution" else whole.contenders
    each = (whole.contender_batches + whole.calibration_batches) * look
    measures = learns == "selection" or whole.final_search == "evolution"
    parts = {"comparing": count * each} if whole.contenders and measures else {}
    if whole.contenders and whole.rerank:
        parts["re-ranking"] = whole.rerank * (whole.rerank_steps * step + 2 * each)
    return parts


def _baselines(settings: RunSettings) -> int:
    """How many networks are trained to be compared with."""
    if settings.baselines is None:
        return 0
    asked = BaselineSettings(**settings.baselines)
    return 1 + asked.random + asked.static + (asked.shuffled and settings.context is not None)


def _baseline_epochs(settings: RunSettings) -> int | None:
    return None if settings.baselines is None else BaselineSettings(**settings.baselines).epochs


def _limited(batches: int | None, limit: int | float) -> int | None:
    if isinstance(limit, float):
        return None if batches is None else int(batches * limit)
    return limit if batches is None else min(batches, limit)


def _parts(parts: Mapping[str, float]) -> str:
    if not parts:
        return "nobody can say: the loader does not tell its length, or steps could not be timed"
    each = ", ".join(f"{name} {_time(seconds)}" for name, seconds in parts.items())
    if TRIAL in parts:
        return each
    return _time(sum(parts.values())) + (f" ({each})" if each else "")


def _time(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} s" if seconds >= 1 else "less than 1 s"


def _seconds(value: float | None) -> str:
    return "not timed" if value is None else f"{value:.3g} s"


def _large(value: float) -> str:
    return _scaled(value, 1000.0, ("", " k", " M", " G", " T"))


def _bytes(value: float) -> str:
    return _scaled(value, 1024.0, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float, base: float, units: Iterable[str]) -> str:
    *smaller, last = units
    for unit in smaller:
        if value < base:
            return f"{value:.3g}{unit}"
        value /= base
    return f"{value:.3g}{last}"
