"""``report.html`` and ``report.json`` of a run: one file that needs no other, and the same as data."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ..files import write_atomically
from ..runs import Run
from .data import Report
from .gathering import report_of
from .html import Page
from .sections import SECTIONS

__all__ = ["page_of", "write_report"]


def write_report(folder: str | Path, trust: Collection[str] = ()) -> Report:
    """Write the page of a run, and the same as data; return that.

    Parameters
    ----------
    folder, trust
        As of :func:`report_of`.

    Raises
    ------
    RunError
        There is no run.
    """
    run, report = Run.read(folder), report_of(folder, trust)
    write_atomically(run.report.with_suffix(".json"), (report.to_json() + "\n").encode())
    write_atomically(run.report, page_of(report).encode())
    return report


def page_of(report: Report) -> str:
    """Return the page of a report."""
    page = Page()
    for section in SECTIONS:
        section(page, report)
    return filled(f"{report.name}: what was found", page)


def filled(title: str, page: Page) -> str:
    """Return a whole page: style sheet, script and pictures are inside."""
    parts = {name: _shipped(f"page.{ending}") for name, ending in (("style", "css"), ("script", "js"))}
    whole = Template(_shipped("page.html"))
    return whole.substitute(title=escape(title), body=str(page), pictures=_in_script(page.pictures), **parts)


def _shipped(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _in_script(data: Mapping[str, Any]) -> str:
    """Return data as JSON that no word in it can end the script with."""
    return json.dumps(data).replace("<", "\\u003c")
