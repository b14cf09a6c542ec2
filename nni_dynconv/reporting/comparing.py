"""Runs beside one another: one table, and one page. What cannot be compared is said, and not ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ..runs import TRAINED, Run
from .answers import number
from .data import Report
from .drawing import dots
from .gathering import report_of
from .html import Page, text
from .writing import filled

__all__ = ["RunRow", "Runs", "compare_runs"]


@dataclass(frozen=True)
class RunRow:
    """One run.

    Parameters
    ----------
    name, architecture
        Of the folder; of what was found, in words.
    metric, result
        What it was validated by, and how much it reached; ``None`` where it is not known.
    over_random, over_twin
        How much better than those it is, by the first metric of its own comparison.
    multiply_adds, parameters, seconds
        Of one sample, stored, and of the search.
    comparable
        Whether its result may stand beside the first run's.
    remark
        Why not, and what else there is to say.
    """

    name: str
    architecture: str
    metric: str | None
    result: float | None
    over_random: float | None
    over_twin: float | None
    multiply_adds: int | None
    parameters: int | None
    seconds: float | None
    comparable: bool
    remark: str


@dataclass(frozen=True)
class Runs:
    """Several runs.

    Parameters
    ----------
    rows
        In the order in which they were named.
    mode
        ``min`` or ``max``, which results are good; ``None`` where no run says so.
    """

    rows: Sequence[RunRow]
    mode: str | None

    @property
    def best(self) -> RunRow | None:
        """The best of those that may be compared; ``None`` where it is not known which results are good."""
        known = [one for one in self.rows if one.comparable and one.result is not None]
        if len(known) < 2 or self.mode is None:
            return None
        return (min if self.mode == "min" else max)(known, key=lambda one: one.result or 0.0)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return to_json(asdict(self), indent=1, inf_nan_mode="null").decode()

    def __str__(self) -> str:
        width = max(len(one.name) for one in self.rows) + 4
        head = f"  {'run':<{width}}{'result':>10}{'+ random':>10}{'+ twin':>10}{'multiply-adds':>15}{'parameters':>12}"
        return "\n".join([f"{head}  architecture", *map(self._line, self.rows), *self._end()])

    def _line(self, one: RunRow) -> str:
        width = max(len(row.name) for row in self.rows) + 4
        star = f"{one.name} *" if one is self.best else one.name if one.comparable else f"({one.name})"
        cells = [_or_dash(one.result), _gain(one.over_random), _gain(one.over_twin)]
        left = "".join(f"{cell:>10}" for cell in cells)
        costs = f"{_or_dash(one.multiply_adds):>15}{_or_dash(one.parameters):>12}"
        return f"  {star:<{width}}{left}{costs}  {one.architecture}"

    def _end(self) -> Iterator[str]:
        yield from (f"{one.name}: {one.remark}" for one in self.rows if one.remark)
        yield self._verdict()

    def _verdict(self) -> str:
        best = self.best
        if best is not None:
            return f"* `{best.name}` is the best by {best.metric}. One run of each: a small difference may be chance."
        if self.mode is None:
            return "None is called the best: no run says whether a high or a low result is good."
        return "None is called the best: fewer than two may be compared."

    def page(self) -> str:
        """Return one page that needs no other file."""
        page = Page()
        page.add("<h1>Runs beside one another</h1>")
        metric, best = self.rows[0].metric or "result", self.best
        known = [one for one in self.rows if one.comparable and one.result is not None]
        shown = [(one.name, [one.result or 0.0], one is best) for one in known]
        page.figure(dots(shown, metric), f"{metric}, validated; only runs that may be compared.")
        head = ["run", metric, "over random", "over its twin", "multiply-adds", "parameters", "seconds of search"]
        page.table(head, list(map(_cells, self.rows)), [one is best for one in self.rows])
        page.add(f"<p>{text(self._verdict())}</p>")
        page.table(["run", "architecture", ""], [[one.name, one.architecture, one.remark] for one in self.rows])
        return filled("Runs beside one another", page)


def _cells(one: RunRow) -> list[Any]:
    result = one.result if one.comparable else None
    costs = (one.multiply_adds, one.parameters, one.seconds)
    return [one.name, result, one.over_random, one.over_twin, *costs]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"


def compare_runs(folders: Sequence[str | Path]) -> Runs:
    """Put runs beside one another.

    Parameters
    ----------
    folders
        Of runs, finished or not. The first says what the task is.

    Raises
    ------
    RunError
        One of them is no run.
    """
    reports = [report_of(one) for one in folders]
    tasks = [_task(Run.read(one), report) for one, report in zip(folders, reports, strict=True)]
    rows = [_row(report, task, tasks[0]) for report, task in zip(reports, tasks, strict=True)]
    modes = {mode for one, report in zip(folders, reports, strict=True) if (mode := _mode(Run.read(one), report))}
    return Runs(rows, modes.pop() if len(modes) == 1 else None)


def _task(run: Run, report: Report) -> dict[str, str | None]:
    """Return what makes results comparable: what trains and scores, the metric, and what goes in and comes out."""
    settings, network = run.facts.get("settings") or {}, report.network
    ports = {} if network is None else {"inputs": ", ".join(network.takes), "outputs": ", ".join(network.gives)}
    return {"evaluator": settings.get("evaluator"), "metric": report.metric or settings.get("metric"), **ports}


def _mode(run: Run, report: Report) -> str | None:
    asked = (run.facts.get("settings") or {}).get("optimize_mode")
    return report.compared.mode if report.compared else {"maximize": "max", "minimize": "min"}.get(asked or "")


def _row(report: Report, task: dict[str, str | None], first: dict[str, str | None]) -> RunRow:
    remarks = list(_remarks(report, task, first))
    compared, cost = report.compared, report.network.cost if report.network else None
    worth = {} if compared is None else {kind: one.get(compared.metrics[0]) for kind, one in compared.worth.items()}
    chosen = ", ".join(f"{one.label} = {one.chosen}" for one in report.searched.choices if one.chosen is not None)
    return RunRow(
        report.name,
        chosen or "-",
        report.metric,
        report.result,
        worth.get("random"),
        worth.get("static twin"),
        None if cost is None else cost.multiply_adds,
        None if cost is None else cost.parameters,
        report.searched.seconds,
        not remarks,
        "; ".join(remarks),
    )


def _remarks(report: Report, task: dict[str, str | None], first: dict[str, str | None]) -> Iterator[str]:
    """Yield why a run may not stand beside the first."""
    if report.state != TRAINED:
        how = "its search did not end" if report.state == "unfinished" else "what was found is not trained to its end"
        yield f"unfinished: {how}"
    elif report.result is None:
        yield "nothing was measured of it"
    others = [
        f"{name} `{one}` instead of `{first[name]}`"
        for name, one in task.items()
        if one is not None and first.get(name) is not None and one != first[name]
    ]
    if others:
        yield f"another task: {', '.join(others)}"
