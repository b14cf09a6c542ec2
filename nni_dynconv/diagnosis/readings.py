"""What was measured at each place, as data. Measuring, and judging, are elsewhere."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CandidateReading",
    "ChoiceReading",
    "ContextReading",
    "NormReading",
    "SiteReading",
    "WhoseReading",
]


class SiteReading(NamedTuple):
    """One site over the runs in which it was alive; ratios are geometric means over them.

    Parameters
    ----------
    site
        Its name.
    runs
        In how many it was alive.
    made
        Root mean square of what the controller makes for it, before scale and base: 1 at the start, by contract.
        ``None`` where the controller is not asked, or shares its work in another way.
    weight_scale
        Root mean square of its weights over that of torch's initialisation, ``1 / sqrt(3 fan_in)``, or over that of
        given ones; of the tensor that is farthest from 1. ``None`` for an op that has no tensor of kind ``weight``.
    gain
        Root mean square of its output over its input's.
    twin_gain
        The same of the static twin: the same op, on the same input, with weights as torch initialises them, or with
        those that it had before it was lifted.
    variation
        Root mean square of its weights' deviations from their mean over contexts, over that of the weights. ``None``
        where all samples share one set.
    gradient
        Norm of the loss's gradient into its weights, times the norm of the weights, over the loss.
    finite
        Whether weights and outputs were finite numbers throughout.
    """

    site: str
    runs: int
    made: float | None
    weight_scale: float | None
    gain: float
    twin_gain: float
    variation: float | None
    gradient: float
    finite: bool = True

    @property
    def gain_ratio(self) -> float:
        """Gain over the static twin's."""
        return self.gain / self.twin_gain if self.twin_gain else (1.0 if not self.gain else float("inf"))


class ContextReading(NamedTuple):
    """Whether the controller lives by its context.

    Parameters
    ----------
    spread
        How much the contexts of a batch differ: their deviation over their root mean square.
    code_spread
        The same of the encoder's output.
    variation
        Mean over sites of :attr:`SiteReading.variation`.
    gradient
        Norm of the loss's gradient into the context, times the norm of the context, over the loss. ``None`` where the
        context holds no floating-point number.
    code_gradient
        The same of the encoder's output.
    delta_gradient
        The same of what the controller makes.
    waking
        Whether something between controller and weights, such as a factor that starts at zero, has a gradient.
    gap
        Loss with the contexts shuffled within each batch, less the loss, over the loss. ``None`` for a single context.
    gap_error
        Standard error of the gap over the runs; ``None`` for a single one.
    """

    spread: float
    code_spread: float
    variation: float | None
    gradient: float | None
    code_gradient: float
    delta_gradient: float
    waking: bool
    gap: float | None
    gap_error: float | None


class CandidateReading(NamedTuple):
    """One candidate of one choice.

    Parameters
    ----------
    label, candidate
        As in a sample.
    runs
        In how many it was alive; 0: it is known by its probability alone.
    probability
        That the sampler gives it.
    output
        Root mean square of its output.
    deviation
        Root mean square of its output's deviations from the mean of each channel, over ``output``.
    gradient
        Norm of the loss's gradient into its weights and parameters, generated or not; ``None`` where it has none.
    """

    label: str
    candidate: str
    runs: int
    probability: float
    output: float
    deviation: float
    gradient: float | None

    @property
    def name(self) -> str:
        return f"{self.label}/{self.candidate}"


class ChoiceReading(NamedTuple):
    """One label.

    Parameters
    ----------
    label
        NNI's label.
    entropy
        Of the sampler's probabilities, over that of equal ones: 1 for equal, 0 for one candidate alone.
    winner
        The most probable candidate.
    probability
        Its probability.
    candidates
        How many there are.
    free
        Whether the winner has no weights (skip, pool), while another candidate has; ``None`` where that is no question.
    gradient
        What the sampler has to learn it by, over the loss: the norm of its logits' gradient, where that goes through a
        factor or a mixture; else by how much the loss changes with another candidate in its place, all else equal.
    """

    label: str
    entropy: float
    winner: str
    probability: float
    candidates: int
    free: bool | None
    gradient: float


class NormReading(NamedTuple):
    """One batch normalisation.

    Parameters
    ----------
    name
        Its path in the network.
    training, expected
        Its mode, and the network's.
    updates
        Batches that its running statistics have seen; ``None`` where it keeps none.
    left
        Share of the first running statistics, 0 and 1, that these left by its momentum.
    mean_shift
        Distance of the batches' means from the running mean in running standard deviations, root mean square over
        channels. ``None`` before the first update, or where it did not run.
    variance_ratio
        Variance of the batches over the running one, geometric mean over channels.
    """

    name: str
    training: bool
    expected: bool
    updates: int | None
    left: float | None
    mean_shift: float | None
    variance_ratio: float | None


class WhoseReading(NamedTuple):
    """Whose weights a sample gets, in evaluation mode, where samples have contexts of their own.

    Parameters
    ----------
    judged, unknown
        Architectures in which it could be told, and those in which samples reach each other by themselves.
    astray
        Of the judged ones, how many have contexts that reach other samples than their own.
    where
        The first site whose input has samples in another order than the forward; ``network`` where none has, and
        nothing where none went astray.
    """

    judged: int
    unknown: int
    astray: int
    where: str
