"""What is wrong with weights and context, judged from readings."""

from __future__ import annotations

from .diagnosis import Diagnosis
from .findings import Finding, by_progress, places, span
from .readings import ContextReading, SiteReading
from .thresholds import (
    EARLY,
    LEAST_GAP,
    LEAST_GRADIENT,
    LEAST_MADE,
    LEAST_VARIATION,
    START_GAIN,
    START_SCALE,
    TRAINED_GAIN,
    TRAINED_SCALE,
    at_the_start,
)

__all__ = ["context", "not_finite", "scales", "whose", "zero_controller"]


def not_finite(d: Diagnosis) -> list[Finding]:
    wrong = [site.site for site in d.sites if not site.finite]
    if not wrong:
        return []
    where = places(wrong, len(d.sites), "all sites")
    remedy = "Lower the learning rate or clip gradients; look at what the context holds."
    return [Finding("not-finite", "fault", where, "weights or outputs are infinite or no numbers", "finite", remedy)]


def zero_controller(d: Diagnosis) -> list[Finding]:
    made = [site for site in d.sites if site.made is not None]
    wrong = [site for site in made if site.made is not None and site.made < LEAST_MADE]
    if not wrong:
        return []
    return [
        Finding(
            "controller-zero",
            "fault",
            places([site.site for site in wrong], len(made), "controller"),
            f"makes values of {span(site.made or 0.0 for site in wrong)}",
            "1 at the start (root mean square)",
            "Let its last layer start as the package's controllers do; for a delta that starts at zero, let the factor "
            "be zero and not what the controller makes, for then neither learns from the other.",
        )
    ]


def scales(d: Diagnosis) -> list[Finding]:
    start = at_the_start(d.progress)
    most, most_gain = (START_SCALE, START_GAIN) if start else (TRAINED_SCALE, TRAINED_GAIN)
    wrong = {site.site: _farthest(site, start) for site in d.sites}
    wrong = {site: value for site, value in wrong.items() if not 1 / most <= value <= most}
    gains = {s.site: s.gain_ratio for s in d.sites if s.site not in wrong}
    gains = {site: value for site, value in gains.items() if not 1 / most_gain <= value <= most_gain}
    remedy = (
        "A controller makes values of unit variance, which the package scales by each tensor's fan-in: look at the "
        "controller's initialisation, and at `fan_in` and `kind` of the op's specs."
    )
    found = []
    for code, values, limit, what in (
        ("scale", wrong, most, "weights are {} times as large as a static layer's"),
        ("gain", gains, most_gain, "outputs are {} times as large as a static layer's on the same input"),
    ):
        if values:
            where = places(list(values), len(d.sites), "all sites")
            expected = f"{1 / limit:.3g} to {limit:.3g}"
            found.append(Finding(code, "fault", where, what.format(span(values.values())), expected, remedy))
    return found


def whose(d: Diagnosis) -> list[Finding]:
    """Samples that get each other's weights, in evaluation mode."""
    if d.whose is None or not d.whose.astray:
        return []
    found = f"in {d.whose.astray} of {d.whose.judged} architectures the context of a sample acts on other samples"
    remedy = (
        "An op tells samples by their place in the batch: let the network keep their order on the way to it (`flip`, "
        "`sort`, a permutation, tokens laid time first), or, where it lays several of each side by side, say how: "
        '`with nni_dynconv.repeated("tiled"):` or `repeats="consecutive"`.'
    )
    return [
        Finding("weights-astray", "fault", d.whose.where, found, "each with the weights of its own context", remedy)
    ]


def _farthest(site: SiteReading, start: bool) -> float:
    """Of what is 1 at the start, the value that is farthest from it; once trained, that of the weights alone."""
    values = [site.weight_scale, site.made if start else None]
    return max((v for v in values if v is not None), key=lambda v: max(v, 1 / max(v, 1e-30)), default=1.0)


def context(d: Diagnosis) -> list[Finding]:
    """Whether the weights follow the context, and learn by it."""
    reading = d.context
    if reading is None:
        return []
    if reading.variation is None or max(reading.spread, reading.code_spread) < LEAST_VARIATION:
        found, remedy = "all samples of a batch have one context", "Diagnose with batches in which contexts differ."
        return [Finding("context-alike", "note", "context", found, "several", remedy)]
    if reading.variation < LEAST_VARIATION:
        return [_ignored(d, reading)]
    into = reading.code_gradient if reading.gradient is None else reading.gradient
    if into < LEAST_GRADIENT:
        found = f"weights vary with it, but no gradient ({into:.2g}) comes back"
        remedy = "Let the encoder run with gradient (no `detach()`, no `no_grad()`), unless it is trained already."
        return [Finding("context-detached", "warning", "context encoder", found, "a gradient", remedy)]
    return _unused(d, reading)


def _ignored(d: Diagnosis, reading: ContextReading) -> Finding:
    found = f"weights vary by {reading.variation:.2g} of their size between contexts"
    expected = f"more than {LEAST_VARIATION:g}"
    if reading.delta_gradient == 0 and reading.waking:
        severity = by_progress(d.progress, EARLY, "note", "fault")
        remedy = "The factor of the delta is zero. It has a gradient and grows with training; train it too."
        return Finding("delta-asleep", severity, "delta", found, expected, remedy)
    blind = reading.code_spread < LEAST_VARIATION
    remedy = (
        "The encoder gives the same code for all contexts: look at what it does with its input."
        if blind
        else "The controller does not use its code: `generate(sites, context)` has to."
    )
    return Finding("context-ignored", "fault", "context encoder" if blind else "controller", found, expected, remedy)


def _unused(d: Diagnosis, reading: ContextReading) -> list[Finding]:
    late = d.progress is not None and d.progress >= EARLY
    if not late or reading.gap is None or reading.gap > LEAST_GAP:
        return []
    found = f"shuffling the contexts changes the loss by {reading.gap:+.2%}"
    remedy = "Train longer, or ask whether the context tells anything that the input does not."
    return [Finding("context-unused", "note", "context", found, f"{LEAST_GAP:+.1%} or more", remedy)]
