"""After a search: NNI's multi-trial strategies over the trained supernet, each sample scored with its own weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.nas.evaluator import Evaluator
from torch import Tensor

from ..errors import ConfigError, SpaceError
from ..supernet import DynamicWeightMutator, input_of, recalibrated, tracking_norms

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
    calibrate
        Training batches, ``((x, context), y)`` or ``(x, y)``, a few: BatchNorm's running statistics are gathered on
        them anew for each architecture before it is scored, and put back afterwards. They are kept in a list.
        ``False``: it is scored by the supernet's, a mixture over all architectures.

    Attributes
    ----------
    scores
        What was evaluated, in order: pairs of a sample and its score.

    Raises
    ------
    ConfigError
        ``calibrate`` is empty.
    SpaceError
        When it is run on a model that was not made by freezing the mutator's space.

    Warns
    -----
    UserWarning
        The space has a BatchNorm with running statistics, and ``calibrate`` is not given.

    References
    ----------
    Guo et al., Single path one-shot neural architecture search with uniform sampling, ECCV 2020, sections 3.3 and 3.4.
    """

    def __init__(
        self, mutator: DynamicWeightMutator, score: Score, calibrate: Iterable[Any] | Literal[False] | None = None
    ):
        self.mutator, self.score_of_network = mutator, score
        self.calibration = self._batches(calibrate)
        self.scores: list[tuple[dict[str, Any], float]] = []

    def _batches(self, given: Iterable[Any] | Literal[False] | None) -> list[Any]:
        norms = len(tracking_norms(self.mutator.space))
        if given is None and norms:
            warnings.warn(
                f"This space has {norms} BatchNorms, whose running statistics are a mixture over all architectures: "
                f"scores by them rank badly. Give `SupernetEvaluator` a few training batches, `calibrate=batches`, or "
                f"write `calibrate=False`.",
                stacklevel=3,
            )
        if given is None or given is False:
            return []
        batches = list(given)
        if not batches:
            raise ConfigError(
                "There is no batch to gather BatchNorm's statistics on: `calibrate` is empty. Give training batches, "
                "or `calibrate=False`."
            )
        return batches

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
        space = self.mutator.space
        statistics = recalibrated(space, lambda batch: space(input_of(batch, space)), self.calibration)
        with self.mutator.using(sample), torch.no_grad(), statistics:
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
