"""A report as data: what a run's page shows, and nothing of how it is drawn. ``report.json`` is this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic_core import to_json

__all__ = [
    "Answer",
    "Choice",
    "Compared",
    "Contender",
    "Cost",
    "Curve",
    "FewSets",
    "Network",
    "Report",
    "Reranked",
    "Rival",
    "Searched",
    "Site",
    "Slides",
    "Spread",
    "Trace",
]


@dataclass(frozen=True)
class Choice:
    """One label of the space.

    Parameters
    ----------
    label, candidates
        Of the space, in its order.
    chosen
        Which of them the run found.
    probabilities
        Of each, when the search was over; empty where that is not known.
    """

    label: str
    candidates: Sequence[str]
    chosen: str | None
    probabilities: Sequence[float] = ()


@dataclass(frozen=True)
class Searched:
    """What was searched, and how.

    Parameters
    ----------
    space, sampler, controller, context
        Names of their classes; ``None`` where there is none, or it is not known.
    choices
        All labels.
    architectures
        How many there are, where no constraint forbids some.
    steps, epochs, seconds
        Of the training of the supernet; ``None`` where there was none, or it is not known.
    """

    space: str | None
    sampler: str | None
    controller: str | None
    context: str | None
    choices: Sequence[Choice]
    architectures: int | None
    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Rival:
    """One network of the comparison.

    Parameters
    ----------
    kind, words
        What it is: in a word of the table's, and for reading.
    metrics
        By name.
    multiply_adds, parameters, seconds
        What one sample takes, what is stored, and how long its training was.
    """

    kind: str
    words: str
    metrics: Mapping[str, float | None]
    multiply_adds: int | None
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Spread:
    """How far the random architectures lie apart, by one metric."""

    count: int
    mean: float
    deviation: float | None
    least: float
    most: float


@dataclass(frozen=True)
class Compared:
    """What was found beside others.

    Parameters
    ----------
    metrics, mode, measured_on
        Which numbers, whether ``min`` or ``max`` is good, and on which data.
    rivals
        The saved network first.
    worth
        By kind and metric, how much better what was found is, both from scratch.
    spread
        Of the random architectures, by metric.
    left_out
        What could not be compared, and why.
    """

    metrics: Sequence[str]
    mode: str
    measured_on: str
    rivals: Sequence[Rival]
    worth: Mapping[str, Mapping[str, float | None]]
    spread: Mapping[str, Spread]
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Contender:
    """One architecture that was re-ranked: its held-out loss with generated weights, and after a short training."""

    words: str
    before: float | None
    after: float | None
    exported: bool


@dataclass(frozen=True)
class Reranked:
    """The end of a search: the best few, as it ranked them, and what a short training made of that."""

    rows: Sequence[Contender]
    steps: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What the network costs.

    Parameters
    ----------
    multiply_adds, making
        Of convolutions and linear maps for one sample, all in all, and of these, for making its weights; ``None``
        where one sample alone does not run.
    parameters, stored
        Numbers that are stored, and of these, those of encoder and controller.
    made
        Values of weights that are made for one context.
    seconds
        One sample's time on the machine that wrote the report.
    """

    multiply_adds: int | None
    making: int | None
    parameters: int
    stored: int
    made: int
    seconds: float | None

    @property
    def share(self) -> float | None:
        """Which part of the multiply-adds makes weights."""
        return self.making / self.multiply_adds if self.multiply_adds and self.making is not None else None


@dataclass(frozen=True)
class FewSets:
    """What is lost with few sets of weights in the place of the controller.

    Parameters
    ----------
    counts
        Numbers of sets.
    metrics, gaps
        By name: what was measured with each, and how much worse that is.
    dynamic
        The network itself, by name.
    faster
        How many times as fast one sample is with each.
    allowed
        How much worse each metric may be.
    recommended
        The fewest sets that lose no more; ``None``: all lose more.
    contexts, measured_on
        How many contexts were clustered, and on which batches it was measured.
    """

    counts: Sequence[int]
    metrics: Mapping[str, Sequence[float | None]]
    gaps: Mapping[str, Sequence[float | None]]
    dynamic: Mapping[str, float | None]
    faster: Sequence[float]
    allowed: Mapping[str, float]
    recommended: int | None
    contexts: int
    measured_on: str


@dataclass(frozen=True)
class Site:
    """One place whose weights are generated.

    Parameters
    ----------
    name, op, tensor, shape
        Where it is, what stands there, and which of its tensors is shown.
    values
        How many values all its tensors have.
    base, delta
        How its weights come about.
    dependence
        Standard deviation over contexts, by the root mean square of all values; ``None`` where it is not known.
    fixed
        Whether all contexts have the same weights.
    pictures
        The weights for each context, as PNG in a ``data:`` address.
    kernels
        How many kernels are shown, of how many.
    """

    name: str
    op: str
    tensor: str
    shape: Sequence[int]
    values: int
    base: str | None
    delta: str | None
    dependence: float | None
    fixed: bool
    pictures: Sequence[str]
    kernels: tuple[int, int]


@dataclass(frozen=True)
class Network:
    """What the saved network is, looked at with the contexts of its example.

    Parameters
    ----------
    cost
        Of one sample.
    sites
        In the order in which they run.
    contexts
        What each picture is of, in words.
    real
        Whether these are contexts of the data, and not drawn ones.
    takes, gives
        What goes in and comes out, in words: name, shape and type.
    """

    cost: Cost
    sites: Sequence[Site]
    contexts: Sequence[str]
    real: bool
    takes: Sequence[str]
    gives: Sequence[str]


@dataclass(frozen=True)
class Trace:
    """The sampler over the search: steps, entropy in nats, and the probability of each candidate."""

    steps: Sequence[int]
    entropy: Sequence[float | None]
    probabilities: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Curve:
    """What was logged of a metric over the epochs of a training."""

    phase: str
    metric: str
    epochs: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class Slides:
    """Pictures that the user's own report adds, with a slider.

    Parameters
    ----------
    title
        Above them.
    captions
        What each position of the slider is.
    images
        By name, one for each position, as PNG in a ``data:`` address.
    """

    title: str
    captions: Sequence[str]
    images: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Answer:
    """A stranger's question, and what the run answers.

    Parameters
    ----------
    question, short, words
        Asked, answered in a few words, and in sentences.
    section
        Where the page shows it.
    """

    question: str
    short: str
    words: Sequence[str]
    section: str


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Parameters
    ----------
    name, state
        Of the run's folder, and how far the run came: ``unfinished``, ``searched`` or ``trained``.
    metric, result
        What the saved network reached.
    searched, compared, reranked, network, few, trace, curves, slides
        Parts; ``None`` or empty where the run has none.
    fidelity
        Of the supernet's scores, as ``nni-dynconv rank`` noted it: tau, and its interval.
    findings
        Of the last diagnosis; ``None`` where there was none.
    settings, commands
        What makes the run again.
    problems
        What failed.
    cut
        What the run's time was too short for, as sentences.
    missing
        What the page cannot show, and why.
    answers
        To five questions.
    """

    name: str
    state: str
    metric: str | None
    result: float | None
    searched: Searched
    compared: Compared | None = None
    reranked: Reranked | None = None
    network: Network | None = None
    few: FewSets | None = None
    trace: Trace | None = None
    curves: Sequence[Curve] = ()
    slides: Sequence[Slides] = ()
    fidelity: Mapping[str, Any] | None = None
    findings: Sequence[Mapping[str, Any]] | None = None
    settings: Mapping[str, Any] | None = None
    commands: Sequence[str] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    cut: Sequence[str] = ()
    missing: Sequence[str] = ()
    answers: Sequence[Answer] = ()

    def to_json(self) -> str:
        """Return everything as JSON; what is no number is ``null``."""
        return to_json(asdict(self), indent=1, inf_nan_mode="null").decode()
