"""The end of a run"s page: how it is made again, and what is missing."""

from __future__ import annotations

from html import escape

from ..commands import experiment_of
from ..data import Report
from ..html import Page, text

__all__ = ["again"]


def again(page: Page, report: Report) -> None:
    """Settings, and the commands that make it again."""
    page.section("again", "Again, and on")
    page.add(f"<pre>{escape(chr(10).join(report.commands))}</pre>")
    if report.settings is not None:
        page.add("<p>Where <code>experiment.yml</code>, in the folder of the experiment's code, is:</p>")
        page.add(f"<pre>{escape(experiment_of(report.settings))}</pre>")
    else:
        page.add("<p>Python code wrote this run: the same script with the same seeds makes it again.</p>")
    if report.missing:
        page.section("missing", "What this page cannot show")
        page.add(f"<ul>{''.join(f'<li>{text(one)}</li>' for one in report.missing)}</ul>")
