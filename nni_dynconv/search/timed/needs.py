"""What comes after a search, in seconds, by what its steps have taken."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import BaselineSettings, StrategySettings

__all__ = ["Needs", "Tempo"]

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
    baselines
        What is compared with; ``None``: nothing.
    """

    settings: StrategySettings
    epochs: float
    selects: bool = False
    baselines: BaselineSettings | None = None

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
        """Return how long the final training takes, and that of what is compared with.

        Examples
        --------
        >>> Needs(StrategySettings(rerank=0), epochs=10).training(Tempo(step=0.1, validation=2.0, batches=100.0))
        144.0
        """
        epoch = tempo.batches * tempo.step + tempo.validation
        epochs = self.epochs
        if self.baselines is not None:  # what was found, from scratch, and its rivals
            trainings = 1 + self.baselines.random + self.baselines.static + self.baselines.shuffled
            epochs += trainings * (self.epochs if self.baselines.epochs is None else self.baselines.epochs)
        return MORE * epochs * epoch if epochs else 0.0
