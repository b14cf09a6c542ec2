"""What a run"s result is worth: what it was compared with, and how sure that is."""

from __future__ import annotations

from html import escape

from ..answers import seconds_told
from ..data import Compared, Report
from ..drawing import dots
from ..html import Page, text

__all__ = ["comparison", "sure"]

RANDOM = "random"


def comparison(page: Page, report: Report) -> None:
    """What was found beside its rivals."""
    page.section("comparison", "By how much, and against what")
    compared = report.compared
    if compared is None:
        page.add("<p>Nothing was compared.</p>")
        return
    page.add(f"<p>Measured on {escape(compared.measured_on)} batches; {_good(compared)}.</p>")
    for metric in compared.metrics:
        rows = _dots(compared, metric)
        page.figure(dots(rows, metric), f"{metric}: each dot is one network.")
    head = ["", *compared.metrics, "multiply-adds", "parameters", "seconds of training"]
    rivals = [
        [
            one.words,
            *(one.metrics.get(name) for name in compared.metrics),
            one.multiply_adds,
            one.parameters,
            one.seconds,
        ]
        for one in compared.rivals
    ]
    page.table(head, rivals, [place == 0 for place in range(len(rivals))])
    for words in compared.left_out:
        page.add(f'<p class="soft">{text(words)}</p>')


def _good(compared: Compared) -> str:
    return "higher is better" if compared.mode == "max" else "lower is better"


def _dots(compared: Compared, metric: str) -> list[tuple[str, list[float], bool]]:
    rows: dict[str, list[float]] = {}
    for one in compared.rivals:
        value = one.metrics.get(metric)
        if value is not None:
            rows.setdefault(RANDOM if one.kind == RANDOM else one.words, []).append(value)
    return [
        (f"{name} ({len(values)})" if name == RANDOM else name, values, place < 2)
        for place, (name, values) in enumerate(rows.items())
    ]


def sure(page: Page, report: Report) -> None:
    """Spread, re-ranking and rank fidelity."""
    answer = next(one for one in report.answers if one.section == "sure")
    page.section("sure", "How sure that is", *answer.words)
    told = report.reranked
    if told is not None:
        page.add(
            f"<p>The best {len(told.rows)} of the search, as it ranked them, and after {told.steps} steps of training "
            f"each ({seconds_told(told.seconds)}); lower is better.</p>"
        )
        names = [f"{one.words} (exported)" if one.exported else one.words for one in told.rows]
        rows = [[place + 1, names[place], one.before, one.after] for place, one in enumerate(told.rows)]
        page.table(["place", "architecture", "loss before", "loss after"], rows, [one.exported for one in told.rows])
