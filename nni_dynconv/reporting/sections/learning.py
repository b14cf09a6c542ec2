"""How a run went: the sampler over its steps, trainings over their epochs, and what the doctor found."""

from __future__ import annotations

from html import escape

from ..data import Curve, Report
from ..drawing import COLOURS, Line, lines
from ..html import Page, text

__all__ = ["findings", "trace", "training"]


def trace(page: Page, report: Report) -> None:
    """Entropy and probabilities over the search."""
    told = report.trace
    if told is None:
        return
    page.section(
        "trace",
        "The sampler over the search",
        "Entropy falls as the sampler decides; a choice that stays level was not decided.",
    )
    page.add('<div class="plots">')
    entropy = lines([Line("entropy", list(zip(told.steps, told.entropy, strict=True)), 0, True)], "step", "nats")
    page.figure(entropy, "Entropy of what was drawn, in nats")
    chosen = {one.label: one.chosen for one in report.searched.choices}
    for label, table in told.probabilities.items():
        drawn = [
            Line(name, list(zip(told.steps, values, strict=True)), place, name == chosen.get(label))
            for place, (name, values) in enumerate(table.items())
        ]
        legend = [(f"{one.name} (chosen)" if one.strong else one.name, (one.colour or 0) % COLOURS) for one in drawn]
        page.figure(lines(drawn, "step", "probability", (0.0, 1.0)), f"Probabilities of `{label}`", legend=legend)
    page.add("</div>")


def training(page: Page, report: Report) -> None:
    """What trainings logged."""
    if not report.curves:
        return
    page.section(
        "training", "Training", "What validation logged after each epoch, of the search and of what came after it."
    )
    page.add('<div class="plots">')
    for metric in dict.fromkeys(one.metric for one in report.curves):
        several = [one for one in report.curves if one.metric == metric]
        drawn = [_curve(one, place) for place, one in enumerate(several)]
        legend = [
            (f"{one.phase} ({len(one.values)} epochs)", drawn[place].colour or 0) for place, one in enumerate(several)
        ]
        page.figure(lines(drawn, "epoch", metric), f"`{metric}`", legend=legend)
    page.add("</div>")


def _curve(one: Curve, place: int) -> Line:
    points = [(epoch + 1, value) for epoch, value in zip(one.epochs, one.values, strict=True)]
    return Line(one.phase, points, (place + 1) % COLOURS, place > 0)


def findings(page: Page, report: Report) -> None:
    """What the last diagnosis found."""
    page.section("findings", "What the doctor found")
    if report.findings is None:
        page.add("<p>Not examined.</p>")
        return
    if not report.findings:
        page.add('<p class="good">Nothing is wrong.</p>')
    for one in report.findings:
        found = f"{one['found']}; expected {one['expected']}. {one['remedy']}"
        mark = f'<span class="tag {one["severity"]}">{one["severity"]}</span>'
        page.add(f"<p>{mark} <b>{escape(one['code'])}</b> at {text('`' + one['where'] + '`')}: {text(found)}</p>")
