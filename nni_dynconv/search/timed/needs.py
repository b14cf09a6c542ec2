"""What comes after a search, in seconds, by what its steps have taken."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import BaselineSettings, StrategySettings

__all__ = ["Needs", "Tempo", "comparison_seconds"]

MORE = 1.2
"""Estimates are raised by a fifth."""
LOOK = 1 / 3
"""Of a training step, what a batch takes without gradients."""


@dataclass(frozen=True)
class Tempo:
    """What a training's parts take.

    Parameters
    ----------
    step
        Seconds of a batch: it is loaded, and the weights learn from it.
    validation
        Seconds of a validation.
    batches
        Of an epoch; infinite where nothing tells.
    """

    step: float
    validation: float
    batches: float


@dataclass(frozen=True)
class Needs:
    """What a run still has to do when its search is over.

    Parameters
    ----------
    settings
        Of the strategy.
    epochs
        Of the final training; infinite where nothing tells.
    selects
        Whether the sampler learns by comparing architectures in the end.
    """

    settings: StrategySettings
    epochs: float
    selects: bool = False

    def comparing(self, tempo: Tempo) -> float:
        """Return how long the last validation and the re-ranking take.

        Examples
        --------
        >>> Needs(StrategySettings(contenders=0), epochs=10).comparing(Tempo(step=0.1, validation=2.0, batches=100.0))
        2.4
        """
        settings = self.settings
        if not settings.contenders:
            return MORE * tempo.validation
        measured = settings.contenders if self.selects else 0
        measured = settings.evaluations if settings.final_search == "evolution" else measured
        looks = measured + 4 * settings.rerank  # before and after its training, on two sets of batches
        looks = looks * (settings.calibration_batches + settings.contender_batches) + settings.calibration_batches
        return MORE * (tempo.validation + (looks * LOOK + settings.rerank * settings.rerank_steps) * tempo.step)

    def training(self, tempo: Tempo) -> float:
        """Return how long the final training takes.

        Examples
        --------
        >>> Needs(StrategySettings(rerank=0), epochs=10).training(Tempo(step=0.1, validation=2.0, batches=100.0))
        144.0
        """
        epoch = tempo.batches * tempo.step + tempo.validation
        return MORE * self.epochs * epoch if self.epochs else 0.0


def comparison_seconds(baselines: BaselineSettings, epochs: int, seconds: float) -> float:
    """Return how long a comparison takes: of what was found, from scratch, and of its rivals.

    Parameters
    ----------
    epochs, seconds
        Of the final training.

    Examples
    --------
    >>> comparison_seconds(BaselineSettings(random=2, shuffled=False), epochs=10, seconds=5.0)
    24.0
    """
    trainings = 1 + baselines.random + baselines.static + baselines.shuffled
    each = seconds if baselines.epochs is None else seconds * baselines.epochs / max(epochs, 1)
    return MORE * trainings * each
