"""A run's folder becomes a report: what is written there is read, and the saved network is looked into."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import export
from ..errors import DynConvError
from ..runs import Run
from .answers import answers_to
from .commands import commands_of
from .data import (
    Choice,
    Compared,
    Contender,
    Curve,
    FewSets,
    Network,
    Report,
    Reranked,
    Rival,
    Searched,
    Spread,
    Trace,
)
from .measuring import look_into
from .slides import slides_of

__all__ = ["report_of"]

MOST_POINTS = 200
"""A line has no more of them."""
RANDOM = "random"
KINDS = {
    "went on": "what was found, trained on (saved)",
    "found": "what was found, from scratch",
    "static twin": "its static twin, learned weights",
    "shuffled contexts": "shown others' contexts",
}
UNFINISHED = "unfinished"


def report_of(folder: str | Path, trust: Collection[str] = ()) -> Report:
    """Return what a run's page shows.

    Parameters
    ----------
    folder
        Of a run, finished or not.
    trust
        As of :func:`nni_dynconv.load`.

    Raises
    ------
    RunError
        There is no run.
    """
    run = Run.read(folder)
    facts, missing = run.facts, list[str]()
    network = _network(run, trust, missing)
    diagnoses, rankings = run.history.of("diagnosis"), run.history.of("ranking")
    report = Report(
        name=run.folder.resolve().name,
        state=facts.get("state", UNFINISHED),
        metric=facts.get("metric"),
        result=facts.get("result"),
        searched=_searched(run),
        compared=_compared(run),
        reranked=_reranked(run),
        network=network,
        few=_few(run),
        trace=_trace(run),
        curves=_curves(run),
        slides=slides_of(run),
        fidelity=_fidelity(rankings[-1]) if rankings else None,
        findings=diagnoses[-1]["findings"] if diagnoses else None,
        settings=facts.get("settings"),
        commands=commands_of(run),
        problems=run.problems,
        cut=facts.get("cut", ()),
        missing=missing,
    )
    report = replace(report, missing=(*missing, *_not_there(report)))
    return replace(report, answers=answers_to(report))


def _network(run: Run, trust: Collection[str], missing: list[str]) -> Network | None:
    if not run.network.is_file():
        missing.append("Cost and weights: the run has no exported network.")
        return None
    try:
        shown = export.example_in(run.folder)
        if shown is None:
            missing.append("Cost and weights: an earlier version saved the network, without an example to try it on.")
            return None
        return look_into(export.load(run.folder, trust), shown)
    except (DynConvError, RuntimeError, ValueError, LookupError, TypeError) as error:
        missing.append(f"Cost and weights: the network cannot be looked into: {error}")
        return None


def _not_there(report: Report) -> Sequence[str]:
    absent = {
        "Comparison: nothing was compared. `baselines: {}` in the YAML, or `mutator.strategy(baselines={})`.": (
            report.compared is None
        ),
        "Re-ranking: the best few were not trained briefly and compared.": report.reranked is None,
        "Rank fidelity: not measured. `nni-dynconv rank CONFIG RUN` measures it.": report.fidelity is None,
        "Findings: not examined. `nni-dynconv doctor CONFIG --run RUN` does it, and `diagnose_every` in a search.": (
            report.findings is None
        ),
        "Few sets of weights: not tried. `nni-dynconv export RUN --to clusters` measures what they lose.": (
            report.few is None and report.network is not None
        ),
        "The sampler over time: no search noted its steps here.": report.trace is None,
    }
    return tuple(words for words, is_absent in absent.items() if is_absent)


def _last(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return rows[-1] if rows else {}


def _searched(run: Run) -> Searched:
    space, end = _last(run.history.of("space")), _last(run.history.of("searched"))
    found, last = run.facts.get("architecture", {}), _last(run.history.of("step")).get("probabilities", {})
    labels = space.get("choices") or {label: [str(one)] for label, one in found.items()}
    choices = []
    for label, candidates in labels.items():
        chosen = None if label not in found else str(found[label])
        table = last.get(label, {})
        known = [table[one] for one in candidates] if all(one in table for one in candidates) and table else []
        choices.append(Choice(label, candidates, chosen, known))
    total = math.prod(len(one.candidates) for one in choices) if space else None
    return Searched(
        space=space.get("name"),
        **{name: space.get(name) for name in ("sampler", "controller", "context")},
        choices=choices,
        architectures=total,
        **{name: end.get(name) for name in ("steps", "epochs", "seconds")},
    )


def _compared(run: Run) -> Compared | None:
    if not run.table.is_file():
        return None
    table = json.loads(run.table.read_text(encoding="utf-8"))
    rivals = [_rival(one) for one in table["entries"]]
    spread = {
        name: _spread([one.metrics.get(name) for one in rivals if one.kind == RANDOM]) for name in table["metrics"]
    }
    known = {name: one for name, one in spread.items() if one is not None}
    parts = (table["metrics"], table["mode"], table["measured_on"], rivals, table["worth"], known)
    return Compared(*parts, table.get("left_out", ()))


def _rival(entry: Mapping[str, Any]) -> Rival:
    kind = entry["kind"]
    words = KINDS.get(kind) or f"random: {', '.join(map(str, entry['architecture'].values()))}"
    numbers = (entry[name] for name in ("metrics", "multiply_adds", "parameters", "seconds"))
    return Rival(kind, words, *numbers)


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [one for one in values if one is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Spread(len(known), statistics.fmean(known), deviation, min(known), max(known))


def _reranked(run: Run) -> Reranked | None:
    told = _last(run.history.of("reranked"))
    if not told:
        return None
    rows = [
        Contender(
            ", ".join(map(str, one["architecture"].values())), one["before"], one["after"], place == told["winner"]
        )
        for place, one in enumerate(told["rows"])
    ]
    return Reranked(rows, told["steps"], told["seconds"])


def _few(run: Run) -> FewSets | None:
    if not run.clusters.is_file():
        return None
    told = json.loads(run.clusters.read_text(encoding="utf-8"))
    rows, names = told["rows"], list(told["dynamic"])
    metrics, gaps = ({name: [row[of][name] for row in rows] for name in names} for of in ("metrics", "gaps"))
    counts, faster = ([row[of] for row in rows] for of in ("clusters", "faster"))
    parts = (told[of] for of in ("allowed", "recommended", "contexts", "measured_on"))
    return FewSets(counts, metrics, gaps, told["dynamic"], faster, *parts)


def _trace(run: Run) -> Trace | None:
    rows = run.history.of("step")
    if not rows or not rows[-1]["probabilities"]:
        return None
    rows = [*rows[:: max(1, len(rows) // MOST_POINTS)], rows[-1]]
    labels = rows[-1]["probabilities"]
    over = {
        label: {one: [row["probabilities"][label][one] for row in rows] for one in table}
        for label, table in labels.items()
    }
    return Trace([row["step"] for row in rows], [row["entropy"] for row in rows], over)


def _curves(run: Run) -> Sequence[Curve]:
    """Return what each training logged; of its metrics, those of validation, or all where there are none."""
    rows = run.history.of("epoch")
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row["metrics"].items():
            if value is not None:
                found.setdefault((row["phase"], name), []).append((row["epoch"], value))
    validated = any("val" in name for _, name in found)
    kept = {key: one for key, one in found.items() if "val" in key[1] or not validated}
    return [Curve(*key, *map(list, zip(*points, strict=True))) for key, points in kept.items()]


def _fidelity(ranking: Mapping[str, Any]) -> dict[str, Any]:
    trained = sum(row["trained"] is not None for row in ranking["rows"])
    return {**ranking["fidelity"]["generated"], "metric": ranking["metric"], "trained": trained}
