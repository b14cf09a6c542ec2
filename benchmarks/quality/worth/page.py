"""Makes the tables and the figure of ``docs/worth.md`` from what the experiments have kept.

    python -m benchmarks.quality.worth.page

What has not been measured yet is said so there; the words around the tables are written by hand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality.worth.ladder import BUDGETS, path_of
from benchmarks.quality.worth.rungs import RUNGS
from benchmarks.quality.worth.tasks import TASKS
from benchmarks.quality.worth.training import Interval, described, interval
from nni_dynconv.search.ranking import kendall_tau

__all__ = ["PAGE", "main", "replaced"]

FOLDER, DOCS = Path(__file__).parent, Path(__file__).parents[3] / "docs"
PAGE, FIGURE = DOCS / "worth.md", DOCS / "img" / "worth_ladder.svg"
NOT_YET = "Not measured yet."
PICTURE = "![The share of the gap from blind to oracle that each rung closes, by budget and task](img/worth_ladder.svg)"
WORDS = {"multiply_adds": "multiply-adds", "parameters": "parameters", "seconds": "seconds of training"}
Runs = Mapping[str, Any]


def kept(name: str) -> Runs:
    """Return what an experiment has kept; nothing where it has not begun."""
    path = FOLDER / name
    found: Runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# The ladder


def scores(runs: Runs, rung: str, budget: str, which: str) -> list[float]:
    """Return a rung's scores, in the order of the seeds; none where a seed is missing."""
    seeds = runs.get("settings", {}).get("seeds", [])
    found = {}
    for key, row in runs.get("runs", {}).items():
        own, of, _, seed = key.split("/")
        if (own, of) == (rung, budget) and which in row:
            found[int(seed)] = row[which]
    return [found[seed] for seed in seeds] if seeds and all(seed in found for seed in seeds) else []


def share(runs: Runs, rung: str, budget: str) -> Interval | None:
    """Return the share of the gap from blind to oracle that a rung closes, in percent, over paired seeds."""
    own, blind, oracle = (scores(runs, one, budget, "seen") for one in (rung, "blind", "oracle"))
    if not (own and blind and oracle):
        return None
    gap = fmean(oracle) - fmean(blind)
    return interval([100 * (one - low) / gap for one, low in zip(own, blind, strict=True)])


def ladder() -> str:
    """Return the tables of the ladder, task by task."""
    parts = [PICTURE] if any(_shares().values()) else []
    for task in TASKS.values():
        runs = kept(path_of(task.name).name)
        rows = [row for budget in BUDGETS for row in _rungs(runs, budget)]
        head = (
            "equal", "rung", "width", "steps", f"seen, {task.unit}", "of the gap, %", "between", "beyond",
            "told another context",
        )  # fmt: skip
        parts.append(f"### {task.name}\n\n{table(head, rows) if rows else NOT_YET}")
    return "\n\n".join(parts)


def _rungs(runs: Runs, budget: str) -> Iterator[list[str]]:
    for rung in (*RUNGS, "oracle"):
        seen = scores(runs, rung, budget, "seen")
        if not seen:
            continue
        closed = share(runs, rung, budget)
        row = next(row for key, row in runs["runs"].items() if key.startswith(f"{rung}/{budget}/"))
        others = [scores(runs, rung, budget, which) for which in ("between", "beyond", "shuffled")]
        yield [
            WORDS[budget], rung, str(row["width"]), str(row["steps"]), described(interval(seen)),
            described(closed, 0) if closed and rung not in ("blind", "oracle") else "",
            *(f"{fmean(one):.2f}" if one else "" for one in others),
        ]  # fmt: skip


RIVALS = [rung for rung in RUNGS if rung != "blind"]


def _shares() -> dict[tuple[str, str, str], Interval | None]:
    return {
        (task, budget, rung): share(kept(path_of(task).name), rung, budget)
        for task, budget, rung in product(TASKS, BUDGETS, RIVALS)
    }


def figure(path: Path) -> None:
    """Draw the shares of the gap that each rung closes, where there is anything to draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = _shares()
    if not any(known.values()):
        return
    drawing = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    for axes, task in zip(drawing.subplots(1, len(TASKS)), TASKS, strict=True):
        for place, budget in enumerate(BUDGETS):
            some = [(rung, found) for rung in RIVALS if (found := known[task, budget, rung]) is not None]
            heights = [RIVALS.index(rung) + 0.25 * (place - 1) for rung, _ in some]
            means = [found.mean for _, found in some]
            spread = [[found.mean - found.low for _, found in some], [found.high - found.mean for _, found in some]]
            axes.errorbar(means, heights, xerr=spread, fmt="o", markersize=4, label=f"equal {WORDS[budget]}")
        axes.set_yticks(range(len(RIVALS)), RIVALS)
        axes.axvline(0, color="#888888", linewidth=0.8)
        axes.axvline(100, color="#888888", linewidth=0.8)
        axes.set_title(task)
        axes.set_xlabel("of the gap from blind to oracle, %")
    drawing.axes[0].legend(fontsize=7, frameon=False)
    drawing.savefig(path, metadata={"Date": None})


# Twins


def twins() -> str:
    """Return what 81 networks tell, trained both ways."""
    data = kept("twins.json")
    columns = _columns(data)
    if len(columns) < 4:
        return NOT_YET
    kinds: dict[str, list[list[float]]] = {}
    for (kind, _), column in sorted(columns.items()):
        kinds.setdefault(kind, []).append(column)
    rows = [[f"two {kind} trainings", _tau([(one, other) for one, other in combinations(some, 2)])]
            for kind, some in kinds.items()]  # fmt: skip
    rows.append(["a static and a dynamic one", _tau(list(product(kinds["static"], kinds["dynamic"])))])
    best = [fmean(one) for one in zip(*kinds["dynamic"], strict=True)]
    taken = [max(best) - best[max(range(len(one)), key=one.__getitem__)] for one in kinds["static"]]
    own = [max(best) - best[max(range(len(one)), key=one.__getitem__)] for one in kinds["dynamic"]]
    regrets = [
        ["the winner of 81 static trainings", f"{fmean(taken):.2f}"],
        ["the winner of 81 dynamic trainings, one of them counted", f"{fmean(own):.2f}"],
        *_searches(data, best),
    ]
    return (
        table(("Kendall's tau between", "tau, 95 % by bootstrap over networks"), rows)
        + "\n\n"
        + table(("what is taken", "regret, points of accuracy of dynamic networks"), regrets)
    )


def _columns(data: Runs) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, row in data.get("truth", {}).items():
        kind, network, seed = name.split("/")
        found.setdefault((kind, seed), {})[network] = row["accuracy"]
    whole = data.get("settings", {}).get("networks", 0)
    return {key: [own[one] for one in sorted(own)] for key, own in found.items() if len(own) == whole}


def _tau(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> str:
    """Return the mean tau of pairs of columns, with its interval over networks, by 2,000 resamples."""
    import numpy as np

    draws, count = np.random.default_rng(0), len(pairs[0][0])
    found = [
        fmean(kendall_tau([one[row] for row in rows], [other[row] for row in rows]) for one, other in pairs)
        for rows in (draws.integers(0, count, count).tolist() for _ in range(2000))
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return described((fmean(kendall_tau(*pair) for pair in pairs), low, high))


def _searches(data: Runs, best: Sequence[float]) -> Iterator[list[str]]:
    names = sorted({name.split("/")[1] for name in data["truth"]})
    for steps in data["settings"]["searches"]:
        rows = [row for name, row in data.get("searches", {}).items() if name.startswith(f"{steps}/")]
        if len(rows) > 1:
            regrets = [max(best) - best[names.index(row["found"])] for row in rows]
            yield [f"what a search of {steps} steps finds", described(interval(regrets))]


# Where, searches, continual


def where() -> str:
    """Return the front of answers, and what searches prefer within budgets."""
    data = kept("where.json")
    parts = [text for task in TASKS if (text := _where_of(task, data))]
    return "\n\n".join(parts) or NOT_YET


def _where_of(task: str, data: Runs) -> str:
    truth = {name.split("/")[1]: row for name, row in data.get("truth", {}).items() if name.startswith(f"{task}/")}
    if len(truth) < data.get("settings", {}).get("networks", math.inf):
        return ""
    costs = {name: row["multiply_adds"] for name, row in truth.items()}
    searches = [row for name, row in data.get("searches", {}).items() if name.startswith(f"{task}/")]
    rows = []
    for percent in (5, 25, 50, 100):
        least, most = min(costs.values()), max(costs.values())
        budget = least + percent / 100 * (most - least)
        allowed = [name for name in truth if costs[name] <= budget]
        uniform = [name for name in allowed if len(set(name.split("-"))) == 1]
        best, plain = (max(some, key=lambda name: truth[name]["score"]) for some in (allowed, uniform))
        found = [max(allowed, key=row.__getitem__) for row in searches]
        reached = described(interval([truth[name]["score"] for name in found])) if len(found) > 1 else ""
        same = max((found.count(name) for name in found), default=0)
        rows.append([
            f"{budget:,.0f}", f"{best}: {truth[best]['score']:.2f}", f"{plain}: {truth[plain]['score']:.2f}", reached,
            f"{same} of {len(found)}",
        ])  # fmt: skip
    head = ("at most, multiply-adds", "best", "best uniform", "what searches find", "searches that agree")
    return f"### {task}\n\n{table(head, rows)}"


def searches() -> str:
    """Return what each search finds in the same seconds."""
    rows = []
    found: dict[str, list[Any]] = {}
    data = kept("searches.json")
    for name, row in data.get("runs", {}).items():
        found.setdefault(name.rpartition("/")[0], []).append(row)
    for name, some in found.items():
        if len(some) == len(data["settings"]["seeds"]):
            accuracy = interval([row["accuracy"] for row in some])
            rows.append((accuracy.mean, [name, described(accuracy), f"{fmean(row['seconds'] for row in some):.0f}"]))
    rows.sort(key=lambda row: -row[0])
    return table(("search", "accuracy, %", "seconds"), [row for _, row in rows]) if rows else NOT_YET


def continual() -> str:
    """Return what is left of five tasks in the end."""
    data = kept("continual.json")
    rows = []
    for name, strength in data.get("strengths", {}).items():
        runs = [data["runs"].get(f"{name}/{strength}/{seed}") for seed in data["settings"]["seeds"]]
        if all(runs):
            cells = [described(interval([run[which] for run in runs])) for which in ("at_once", "end")]
            held = f"{strength:g}" if strength else ""
            rows.append([name, held, f"{runs[0]['parameters']:,}", *cells])
    head = ("learner", "held by", "parameters", "as it was learned, %", "in the end, %")
    return table(head, rows) if rows else NOT_YET


# The page

SECTIONS: dict[str, Callable[[], str]] = {
    "ladder": ladder, "twins": twins, "where": where, "searches": searches, "continual": continual,
}  # fmt: skip


def replaced(text: str, name: str, made: str) -> str:
    r"""Return a page in which what stands between a section's marks is exchanged.

    Examples
    --------
    >>> replaced("<!-- a -->\nold\n<!-- end of a -->", "a", "new")
    '<!-- a -->\n\nnew\n\n<!-- end of a -->'
    """
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    inside = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.DOTALL)
    return inside.sub(lambda _: f"{marks[0]}\n\n{made}\n\n{marks[1]}", text)


def main() -> None:
    """Write the page's tables, and the figure."""
    text = PAGE.read_text(encoding="utf-8")
    for name, make in SECTIONS.items():
        text = replaced(text, name, make())
    figure(FIGURE)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
