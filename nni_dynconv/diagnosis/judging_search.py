"""What is wrong with candidates, normalisations and sampler, judged from readings."""

from __future__ import annotations

from collections.abc import Sequence

from .diagnosis import Diagnosis
from .findings import Finding, Severity, by_progress, places, span
from .readings import CandidateReading, ChoiceReading, NormReading
from .thresholds import (
    EARLY,
    LEAST_DEVIATION,
    LEAST_ENTROPY,
    LEAST_GRADIENT,
    LEAST_LESSON,
    LEFT,
    SKIPS,
    STALE_SHIFT,
    STALE_VARIANCE,
    TRAINED_SCALE,
    WON,
    WORSE,
    at_the_start,
)

__all__ = ["candidates", "choices", "diverged", "norms", "sampler"]


# The training


def diverged(d: Diagnosis) -> list[Finding]:
    """A training that ended far worse than it began, or in weights that no initialisation gives."""
    remedy = (
        "Lower the learning rate, of the evaluator's optimizer and of the sampler's, or clip gradients "
        "(`gradient_clip_val`), and search again: nothing can be told of a network that is in this state."
    )
    if d.started is not None and not d.loss - d.started <= (WORSE - 1) * abs(d.started):
        expected = f"below {d.started:.3g}, that of its first weights"
        return [Finding("diverged", "fault", "search", f"its loss is {d.loss:.3g}", expected, remedy)]
    sizes = {one.site: max(one.weight_scale or 0.0, 0.0) for one in d.sites}
    wrong = {site: size for site, size in sizes.items() if size > TRAINED_SCALE}
    if d.progress is None or at_the_start(d.progress) or not wrong:
        return []
    where = places(list(wrong), len(d.sites), "all sites")
    found = f"weights have grown to {span(wrong.values())} times a static layer's, the loss is {d.loss:.3g}"
    return [Finding("diverged", "fault", where, found, f"{TRAINED_SCALE:g} times at most", remedy)]


# Candidates


def candidates(d: Diagnosis) -> list[Finding]:
    """Candidates that give nothing, learn nothing, or were never reached; those without weights may give zeros."""
    seen = [one for one in d.candidates if one.runs]
    with_weights = [one for one in seen if one.gradient is not None]
    dead = [one for one in with_weights if one.output == 0 or one.deviation < LEAST_DEVIATION]
    found = [_dead(one) for one in dead]
    found += [_zero(one) for one in seen if one.gradient is None and one.output == 0]
    found += _untrained(d, [one for one in with_weights if one not in dead])
    unseen = [one.name for one in d.candidates if not one.runs]
    if unseen:
        remedy = "Raise `samples`; a candidate inside another one runs only with that."
        where = places(unseen, len(d.candidates), "all candidates")
        found.append(Finding("candidate-unseen", "note", where, "ran in no architecture", "one or more", remedy))
    return found


def _dead(one: CandidateReading) -> Finding:
    constant = f"gives the same everywhere (deviation {one.deviation:.2g} of its size)"
    what = "gives zeros" if one.output == 0 else constant
    remedy = "Look at its weights, and for a ReLU behind a large negative bias; or take it out of the choice."
    return Finding("candidate-dead", "fault", one.name, what, "outputs that follow the input", remedy)


def _zero(one: CandidateReading) -> Finding:
    """A candidate without weights may be meant to."""
    remedy = "If it is meant so, as the `none` of DARTS is, ignore it; else look at what it does with its input."
    return Finding("candidate-dead", "note", one.name, "has no weights, and gives zeros", "outputs", remedy)


def _untrained(d: Diagnosis, alive: Sequence[CandidateReading]) -> list[Finding]:
    """A candidate alone without gradient is cut off; where all of a choice have none, what comes after may be zero."""
    found = []
    for label in dict.fromkeys(one.label for one in alive):
        own = [one for one in alive if one.label == label]
        without = [one for one in own if (one.gradient or 0.0) < LEAST_GRADIENT]
        if not without:
            continue
        all_of_them = len(without) == len(own)
        severity = by_progress(d.progress, 0.1, "note", "fault") if all_of_them else "fault"
        where = places([one.name for one in without], len(own), f"all candidates of {label}")
        remedy = "Look for `detach()`, `no_grad()` or a factor of zero between its weights and the loss."
        values = span(one.gradient or 0.0 for one in without)
        found.append(Finding("candidate-untrained", severity, where, f"its gradient is {values}", "above zero", remedy))
    return found


def choices(d: Diagnosis) -> list[Finding]:
    """Choices that the sampler has nothing to learn by; at the start what comes after one may still be zero."""
    wrong = [one for one in d.choices if one.gradient < LEAST_LESSON]
    if not wrong:
        return []
    severity = by_progress(d.progress, 0.1, "note", "fault")
    where = places([one.label for one in wrong], len(d.choices), "all choices")
    what = f"its gradient is {span(one.gradient for one in wrong)} of the loss"
    remedy = (
        "The loss does not follow what is chosen: look for `detach()` or a factor of zero behind the choice. A norm "
        "behind it cancels what GDAS learns by with `paths=1`: take 2."
    )
    return [Finding("choice-dead", severity, where, what, f"more than {LEAST_LESSON:g}", remedy)]


# Normalisations


def norms(d: Diagnosis) -> list[Finding]:
    """Batch normalisations in another mode than the network, and those with the statistics of something else."""
    return [*_modes(d.norms), *_stale(d.norms)]


def _modes(norms: Sequence[NormReading]) -> list[Finding]:
    found = []
    for training, what, word in (
        (False, "normalises by its running statistics", "train"),
        (True, "normalises by the batch, and goes on averaging", "eval"),
    ):
        wrong = [one.name for one in norms if one.training is training and one.expected is not training]
        if wrong:
            expected = f"{'training' if not training else 'evaluation'} mode, as the network's"
            remedy = f"Call `mutator.space.{word}()` after whatever changed it; if it is meant so, ignore `norm-mode`."
            where = places(wrong, len(norms), "all batch normalisations")
            found.append(Finding("norm-mode", "fault", where, what, expected, remedy))
    return found


def _stale(norms: Sequence[NormReading]) -> list[Finding]:
    """Running statistics of something else spoil what is in evaluation mode now, and what will be later."""
    wrong = [one for one in norms if one.left is not None and one.left <= LEFT and _is_stale(one)]
    if not wrong:
        return []
    severity: Severity = "warning" if all(one.training for one in wrong) else "fault"
    shifts, ratios = span(n.mean_shift or 0.0 for n in wrong), span(n.variance_ratio or 1.0 for n in wrong)
    found = f"batches are {shifts} running deviations off, with {ratios} times the running variance"
    expected = f"at most {STALE_SHIFT:g}, and {1 / STALE_VARIANCE:g} to {STALE_VARIANCE:g}"
    remedy = "Let it see some batches in training mode before it is used, under the architecture that is measured."
    where = places([one.name for one in wrong], len(norms), "all batch normalisations")
    return [Finding("norm-stale", severity, where, found, expected, remedy)]


def _is_stale(one: NormReading) -> bool:
    if one.mean_shift is None or one.variance_ratio is None:
        return False
    return one.mean_shift > STALE_SHIFT or not 1 / STALE_VARIANCE <= one.variance_ratio <= STALE_VARIANCE


# The sampler


def sampler(d: Diagnosis) -> list[Finding]:
    """Labels that are decided too early, and skips that win nearly everywhere."""
    return [*_collapsed(d), *_skips(d)]


def _collapsed(d: Diagnosis) -> list[Finding]:
    if d.progress is not None and d.progress >= EARLY:
        return []
    severity = by_progress(d.progress, EARLY, "fault", "note")
    remedy = (
        "Let the weights train before the sampler does (`warmup_epochs`), lower its learning rate, or raise its "
        "temperature or `entropy_weight`."
    )
    wrong = [one for one in d.choices if one.entropy < LEAST_ENTROPY]
    expected = f"{LEAST_ENTROPY:g} or more before half of the search"
    return [Finding("sampler-collapsed", severity, one.label, _decided(one), expected, remedy) for one in wrong]


def _decided(one: ChoiceReading) -> str:
    kind = ", which has no weights," if one.free else ""
    return f"its entropy is {one.entropy:.2g} of the most: `{one.winner}`{kind} has probability {one.probability:.3f}"


def _skips(d: Diagnosis) -> list[Finding]:
    open_to_skips = [one for one in d.choices if one.free is not None]
    won = [one for one in open_to_skips if one.free and _has_won(one)]
    if len(open_to_skips) < 2 or len(won) < SKIPS * len(open_to_skips):
        return []
    where = places([one.label for one in won], len(d.choices), "all choices")
    found = f"candidates without weights win {len(won)} of {len(open_to_skips)} choices"
    remedy = (
        "A known failure of searches by gradient: skips win because they need no training. Use `warmup_epochs`, or "
        "GDAS in the place of DARTS."
    )
    return [Finding("skips-dominate", "warning", where, found, f"fewer than {SKIPS:.0%}", remedy)]


def _has_won(one: ChoiceReading) -> bool:
    """Whether the winner is clearly more probable than of equal candidates, by odds, which no number of them bounds."""
    return one.probability * (one.candidates - 1) > WON * (1 - one.probability)
