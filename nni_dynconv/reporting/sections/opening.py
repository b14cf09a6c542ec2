"""The top of a run"s page: its five answers, and what was searched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..answers import number, seconds_told
from ..data import Choice, Report
from ..drawing import graph
from ..html import Page, text

__all__ = ["architecture", "head"]


def head(page: Page, report: Report) -> None:
    """Name, result, and the five answers."""
    page.add(f"<h1>{escape(report.name)}</h1>")
    what = f"{report.metric} {number(report.result)}" if report.result is not None else "no result yet"
    page.add(f'<p class="soft">A searched network with generated weights: {escape(report.state)}, {escape(what)}.</p>')
    cards = []
    for one in report.answers:
        words = "".join(f"<li>{text(word)}</li>" for word in one.words)
        cards.append(
            f'<section class="answer"><h2>{escape(one.question)}</h2><p class="short">{text(one.short)}</p>'
            f'<ul>{words}</ul><a href="#{one.section}">more</a></section>'
        )
    page.add(f'<div class="answers">{"".join(cards)}</div>')
    for words in report.cut:
        page.add(f'<p class="bad"><b>Cut for time.</b> {text(words)}</p>')
    for what, why in report.problems.items():
        page.add(f'<p class="bad"><b>Failed: {escape(what)}.</b> {text(why)}</p>')


def architecture(page: Page, report: Report) -> None:
    """The chosen path among the alternatives."""
    searched = report.searched
    page.section("architecture", "What was searched, and what won")
    parts = {"space": searched.space, "sampler": searched.sampler, "controller": searched.controller}
    told = [f"{name} `{one}`" for name, one in {**parts, "context": searched.context}.items() if one is not None]
    page.add(f"<p>{text(', '.join(told))}</p>")
    counts = {"architectures": searched.architectures, "choices": len(searched.choices)}
    counts |= {"steps of the search": searched.steps, "epochs": searched.epochs}
    tiles = {name: number(one) for name, one in counts.items() if one is not None}
    if searched.seconds is not None:
        tiles["for the search"] = seconds_told(searched.seconds)
    page.tiles(tiles)
    columns = [(one.label, _boxes(one)) for one in searched.choices]
    if columns:
        words = "One column a choice, in the order of the space; what was not chosen is grey."
        shares = (
            " The number is the sampler's probability when the search was over."
            if searched.choices[0].probabilities
            else ""
        )
        both = f'<div class="if-wide">{graph(columns)}</div><div class="if-narrow">{graph(columns, 2)}</div>'
        page.figure(both, words + shares)


def _boxes(choice: Choice) -> Sequence[tuple[str, str, bool]]:
    shares = [f"{one:.2f}" for one in choice.probabilities] or [""] * len(choice.candidates)
    return [(name, share, name == choice.chosen) for name, share in zip(choice.candidates, shares, strict=True)]
