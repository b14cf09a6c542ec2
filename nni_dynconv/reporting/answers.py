"""Five questions that a stranger asks of a run, answered out of its numbers, in words that say what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .data import Answer, Compared, Report, Reranked, Spread

__all__ = ["answers_to", "number", "seconds_told"]

WORTH = {
    "static twin": "the same structure with learned weights",
    "random": "the mean of {count} random architecture{s} of this space",
    "shuffled contexts": "itself when it is shown others' contexts",
}


def answers_to(report: Report) -> tuple[Answer, ...]:
    """Return what won, by how much, how sure that is, what it costs, and what to do next."""
    return (
        Answer("What won?", *_what(report), "architecture"),
        Answer("By how much?", *_by_how_much(report), "comparison"),
        Answer("How sure is that?", *_how_sure(report), "sure"),
        Answer("What does it cost?", *_cost(report), "cost"),
        Answer("What next?", *_next(report), "again"),
    )


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for reading.

    >>> number(0.88749), number(65970), number(None), number(1234.5)
    ('0.8875', '65,970', 'unknown', '1,234')
    """
    if value is None or not math.isfinite(value):
        return "unknown"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def seconds_told(value: float | None) -> str:
    """Return a time for reading.

    >>> seconds_told(0.00215), seconds_told(75.0), seconds_told(1.25), seconds_told(7300.0)
    ('2.15 ms', '1 min 15 s', '1.25 s', '2 h 1 min')
    """
    if value is None:
        return "unknown"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _what(report: Report) -> tuple[str, Sequence[str]]:
    chosen = [(one.label, one.chosen) for one in report.searched.choices if one.chosen is not None]
    if not chosen:
        found = "Nothing was to choose." if report.state != "unfinished" else "Nothing yet: the search did not end."
        return found, ()
    words = []
    if report.searched.architectures is not None:
        words.append(f"One of {report.searched.architectures:,} architectures of `{report.searched.space}`.")
    if report.result is not None:
        words.append(f"Validated, it has {report.metric} {number(report.result)}.")
    if report.state != "trained":
        words.append("It is NOT trained to its end.")
    return ", ".join(f"{label} = {one}" for label, one in chosen), words


def _by_how_much(report: Report) -> tuple[str, Sequence[str]]:
    compared = report.compared
    if compared is None:
        way_out = _too_long_to_compare(report) or "Say `baselines: {}` in the YAML to compare."
        return "Not known: nothing was compared.", (way_out,)
    metric = compared.metrics[0]
    words = [
        f"{_gain(table[metric], metric)} than {_rival(compared, kind)}."
        for kind, table in compared.worth.items()
        if table.get(metric) is not None
    ]
    twin = compared.worth.get("static twin", {}).get(metric)
    other = compared.worth.get("random", {}).get(metric)
    told = [f"{gain:+.3g} against {who}" for gain, who in ((other, "random"), (twin, "its twin")) if gain is not None]
    head = f"{metric}: {', '.join(told)}" if told else "Not known: nothing else could be trained."
    return head, (*words, "All of these were trained from scratch, by the same steps on the same data.")


def _too_long_to_compare(report: Report) -> str | None:
    """What was said of a comparison that the run had no time for."""
    return next((one for one in report.cut if "comparison" in one), None)


def _rival(compared: Compared, kind: str) -> str:
    count = sum(one.kind == kind for one in compared.rivals)
    return WORTH[kind].format(count=count, s="" if count == 1 else "s")


def _gain(gain: float | None, metric: str) -> str:
    if gain is None:
        return f"Unknown by {metric}"
    return f"{'Better' if gain >= 0 else 'WORSE'} by {number(abs(gain))} {metric}"


def _how_sure(report: Report) -> tuple[str, Sequence[str]]:
    compared, words = report.compared, ["One run, of one seed: another seed may find and reach something else."]
    head = "One seed; nothing tells the spread."
    if compared is not None:
        metric = compared.metrics[0]
        spread, gain = compared.spread.get(metric), compared.worth.get("random", {}).get(metric)
        if spread is not None:
            words.append(_spread(spread, metric))
            head = _by_spread(spread, gain)
        if compared.measured_on == "validation":
            words.append("Measured on the batches that chose it, so it looks better than it is.")
        else:
            words.append("Measured on test batches, which chose nothing.")
    words += [_reranked(report.reranked)] if report.reranked is not None else []
    words += _fidelity(report)
    return head, words


def _by_spread(spread: Spread, gain: float | None) -> str:
    if gain is None or not spread.deviation:
        return "One seed; too few random architectures to tell."
    times = abs(gain) / spread.deviation
    return f"The lead over random is {times:.1f} times their spread" if gain >= 0 else "It does not beat random"


def _spread(spread: Spread, metric: str) -> str:
    if spread.deviation is None:
        return f"One random architecture reaches {metric} {number(spread.mean)}; one has no spread."
    return (
        f"The {spread.count} random architectures reach {metric} {number(spread.least)} to {number(spread.most)}, "
        f"standard deviation {number(spread.deviation, 2)}."
    )


def _reranked(told: Reranked) -> str:
    place = next(number for number, one in enumerate(told.rows) if one.exported)
    what = "the search's own first" if place == 0 else f"number {place + 1} of the search's own order"
    changes = _discordant(told)
    order = "in the same order" if not changes[0] else f"in another order ({changes[0]} of {changes[1]} pairs turned)"
    return f"A short training of the best {len(told.rows)} left them {order}; what is exported was {what}."


def _discordant(told: Reranked) -> tuple[int, int]:
    """Return how many pairs training has turned, of how many that have numbers."""
    rows = [(one.before, one.after) for one in told.rows]
    known = [(before, after) for before, after in rows if before is not None and after is not None]
    pairs = [(one, other) for place, one in enumerate(known) for other in known[place + 1 :]]
    return sum((one[0] - other[0]) * (one[1] - other[1]) < 0 for one, other in pairs), len(pairs)


def _fidelity(report: Report) -> Iterator[str]:
    one = report.fidelity
    if one is None:
        yield "Whether the supernet ranks architectures as training does was not measured."
        return
    span = "too few for an interval"
    if one.get("low") is not None and one.get("high") is not None:
        span = f"95 % interval {one['low']:.2f} to {one['high']:.2f}"
    tau = number(one["tau"], 2)
    yield f"The supernet's scores and what {one['trained']} trained architectures reach: tau {tau} ({span})."


def _cost(report: Report) -> tuple[str, Sequence[str]]:
    if report.network is None:
        return "Not known.", [one for one in report.missing if one.startswith("Cost")]
    cost = report.network.cost
    words = [f"{number(cost.parameters)} numbers are stored, {number(cost.stored)} of them in controller and encoder."]
    words.append(f"For each context {number(cost.made)} values of weights are made.")
    if cost.multiply_adds is None:
        return f"{number(cost.parameters)} parameters", (
            *words,
            "One sample alone does not run, so nothing is counted.",
        )
    if cost.share is not None:
        words.append(f"{cost.share:.0%} of the multiply-adds make weights, once for each context.")
    words.append(f"One sample takes {seconds_told(cost.seconds)} on the machine that wrote this page.")
    if report.searched.seconds is not None:
        words.append(f"The search took {seconds_told(report.searched.seconds)}.")
    return f"{number(cost.multiply_adds)} multiply-adds a sample", words


def _next(report: Report) -> tuple[str, Sequence[str]]:
    steps = list(_steps(report))
    return steps[0], steps[1:]


def _steps(report: Report) -> Iterator[str]:
    """Yield what to do, what matters most first."""
    if report.state == "unfinished":
        yield "Start the run again: its search did not end."
    for what, why in report.problems.items():
        yield f"Mend what failed, {what}: {why}"
    if report.state == "searched":
        yield f"Train what was found to its end: `nni-dynconv train {report.name}`."
    if report.cut:
        yield f"Give the run more time, or go on with its training: `nni-dynconv train {report.name}`."
    faults = [one for one in report.findings or () if one["severity"] == "fault"]
    if faults:
        yield f"Mend what the diagnosis calls a fault: {faults[0]['remedy']}"
    yield from _by_worth(report)
    if report.compared is None and not _too_long_to_compare(report):
        yield "Compare it with something: `baselines: {}` in the YAML."
    elif report.compared is not None and report.compared.measured_on == "validation":
        yield "Give the evaluator test batches, so that the comparison flatters nobody."
    yield "Repeat with other seeds before you trust a small difference."
    yield "Use it: load it, or export it to ONNX."


def _by_worth(report: Report) -> Iterator[str]:
    if report.compared is None:
        return
    metric = report.compared.metrics[0]
    worth = {kind: table.get(metric) for kind, table in report.compared.worth.items()}
    if (worth.get("random") or 0.0) < 0:
        yield "Search longer, or re-rank more: random architectures do better than what was found."
    if (worth.get("static twin") or 0.0) < 0:
        yield "Ask whether weights must be generated here: learned ones do better in the same structure."
    if (worth.get("shuffled contexts") or 0.0) < 0:
        yield "Look at the context: the network does better with somebody else's."
