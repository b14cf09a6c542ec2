"""After a search: NNI's multi-trial strategies over the trained supernet, each sample scored with its own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.nas.evaluator import Evaluator
from torch import Tensor

from .calibration import modes_kept
from .errors import SpaceError
from .mutator import DynamicWeightMutator

__all__ = ["SupernetEvaluator"]

Score = Callable[[DynamicWeightMutator], "float | Tensor"]


class SupernetEvaluator(Evaluator):
    """Score architectures in place, by the weights that the trained supernet has or makes for them: nothing is trained.

    For NNI's multi-trial strategies, such as ``RegularizedEvolution`` and ``Random``, in
    ``NasExperiment(mutator.space, SupernetEvaluator(mutator, score), strategy)``. NNI sees that the space is a
    supernet, and runs all in this process.

    Parameters
    ----------
    mutator
        The trained one.
    score
        Called as ``score(mutator)`` with one architecture in use, in evaluation mode and without gradient. It gives
        one number, higher is better, from the same held-out batches each time.

    Attributes
    ----------
    scores
        What was evaluated, in order: pairs of a sample and its score.

    Raises
    ------
    SpaceError
        When it is run on a model that was not made by freezing the mutator's space.

    References
    ----------
    Guo et al., Single path one-shot neural architecture search with uniform sampling, ECCV 2020.
    """

    def __init__(self, mutator: DynamicWeightMutator, score: Score):
        self.mutator, self.score_of_network = mutator, score
        self.scores: list[tuple[dict[str, Any], float]] = []

    def score(self, sample: Mapping[str, Any]) -> float:
        """Score one architecture.

        Parameters
        ----------
        sample
            Of the mutator's space.

        Raises
        ------
        SampleError
            It is none of that space.
        """
        with modes_kept(self.mutator.space), self.mutator.using(sample), torch.no_grad():
            self.mutator.space.eval()
            return float(self.score_of_network(self.mutator))

    def evaluate(self, model: Any) -> Any:
        raise SpaceError(
            f"`SupernetEvaluator` scores samples of its mutator's space, but was given a {type(model).__name__}. Write "
            f"`NasExperiment(mutator.space, SupernetEvaluator(mutator, score), strategy)`."
        )

    def _execute(self, model: Any) -> Any:
        """Evaluate a model of NNI's raw format, without freezing it: that would copy the supernet's weights."""
        if getattr(model, "model_space", None) is not self.mutator.space:
            return self.evaluate(model)
        result = self.score(model.sample)
        self.scores.append((dict(model.sample), result))
        nni.report_final_result(result)
        return result
