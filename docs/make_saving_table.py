"""Write the tables of ``docs/saving.md`` by what ``make sweep-save`` found: ``python docs/make_saving_table.py``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("saving.md")
RESULTS = PAGE.parents[1] / "benchmarks" / "lifting"
SAME, LIMIT = "passed", "limit"


def read(name: str) -> list[dict[str, Any]]:
    """Read a file of results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def counts_table(models: Any, saved: Sequence[dict[str, Any]], hub: Any) -> Iterator[str]:
    """Return the lines that count."""
    yield "| architectures of | listed | tried | the same | otherwise | refused | not ended | s to save | to load |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for package, listed in Counter(one["package"] for one in models).items():
        own = [one for one in saved if one["package"] == package]
        same = [one for one in own if one["stage"] == SAME]
        other = sum(one["stage"].startswith("different") for one in own)
        limit = sum(one["stage"] == LIMIT for one in own)
        refused = len(own) - len(same) - other - limit
        times = " | ".join(_middle_and_most([one[what] for one in same]) for what in ("save", "load"))
        yield f"| {package} | {listed} | {len(own)} | {len(same)} | {other} | {refused} | {limit} | {times} |"
    tried, same, other = (sum(one[key] for one in hub) for key in ("tried", "same", "different"))
    refused = tried - same - other
    yield f"| {len(hub)} spaces of NNI's hub | | {tried} | {same} | {other} | {refused} | 0 | | |"


def _middle_and_most(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:g}; {ordered[-1]:g}" if ordered else ""


def refused_table(saved: Sequence[dict[str, Any]], hub: Any) -> Iterator[str]:
    """Return the lines that tell what was not saved, and why."""
    yield "| not saved | at | why |"
    yield "| --- | --- | --- |"
    for one in saved:
        if one["stage"] != SAME:
            yield f"| `{one['model']}` | {one['stage']} | {_cell(one['reason'])} |"
    for space in hub:
        for why, number in Counter(space["refused"]).items():
            yield f"| {space['space']}, {number} of {space['tried']} | save | {_cell(why)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def page(text: str) -> str:
    """Return the page with its tables made anew: what stands after the comment that names one."""
    saved, hub = read("saving.json"), read("hub_saving.json")
    for name, lines in (
        ("saved", counts_table(read("models.json"), saved, hub)),
        ("not saved", refused_table(saved, hub)),
    ):
        table = "".join(f"{line}\n" for line in lines)
        text = re.sub(rf"(?<=<!-- table: {name} -->\n\n)(?:\|.*\n)+", lambda _, table=table: table, text)
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
