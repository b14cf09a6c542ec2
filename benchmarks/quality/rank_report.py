"""What ``rank.py`` measured, as the rows of ``results.json`` and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.quality.fashion import ARCHITECTURES
from benchmarks.quality.rank_table import key
from nni_dynconv.search.ranking import kendall_tau, precision, regret

__all__ = ["report", "text", "update_results"]

WORDS = {
    "weight_sharing": "weight sharing (NNI's RandomOneShot)",
    "weight_sharing_calibrated": "  with our recalibration of BatchNorm",
    "generated": "generated weights",
    "generated_uncalibrated": "  without recalibration",
    "one_epoch": "one epoch of SGD each",
    "reranked": "generated weights, best few re-ranked",
    "reranked_by_default": "  as by default at the end of a search",
    "parameters": "number of parameters",
}
MEASURES: dict[str, Any] = {"tau": kendall_tau, "regret": regret, "precision": partial(precision, k=5)}
Table = Mapping[str, Mapping[str, float]]


def report(scores: Mapping[str, Any], table: Table, seeds: Sequence[int]) -> dict[str, Any]:
    """Compare the scores of each seed with the mean accuracies of the table.

    Returns
    -------
    For each contestant mean and standard deviation over the seeds: ``tau``, ``regret`` in points of accuracy,
    ``precision`` in the best five. ``table``: what the truth itself is worth.
    """
    truth = [fmean(table[key(sample)].values()) for sample in ARCHITECTURES]
    rows: dict[str, Any] = {name: _row(scores[name], truth, seeds) for name in WORDS}
    rows["table"] = _table(table, truth)
    rows["seconds"] = {name: round(fmean(of.values()), 1) for name, of in scores["seconds"].items()}
    return rows


def _row(scores: Mapping[str, Sequence[float]], truth: Sequence[float], seeds: Sequence[int]) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, measure in MEASURES.items():
        values = [measure(scores[str(seed)], truth) for seed in seeds]
        row |= {name: round(fmean(values), 4), f"{name}_std": round(stdev(values), 4)}
    return row


def _table(table: Table, truth: Sequence[float]) -> dict[str, Any]:
    """How well one training of each foretells another, and how far the best are apart."""
    seeds = list(next(iter(table.values())))
    columns = {seed: [table[key(sample)][seed] for sample in ARCHITECTURES] for seed in seeds}
    taus = [kendall_tau(columns[one], columns[other]) for one, other in combinations(seeds, 2)]
    ordered = sorted(truth, reverse=True)
    ranks = {"best": ordered[0], "fifth": ordered[4], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    return {
        "seeds": len(seeds),
        "tau_between_seeds": round(fmean(taus), 4),
        **{k: round(v, 2) for k, v in ranks.items()},
    }


def text(rows: Mapping[str, Any]) -> str:
    """Lay the rows out for reading."""
    lines = [f"{'':<40}{'tau':>15}{'regret':>15}{'top 5':>15}"]
    for name, words in WORDS.items():
        row = rows[name]
        cells = (f"{row[one]:.2f} ± {row[one + '_std']:.2f}" for one in MEASURES)
        lines.append(f"{words:<40}" + "".join(f"{cell:>15}" for cell in cells))
    table = rows["table"]
    lines.append(
        f"Truth: mean of {table['seeds']} trainings each, tau {table['tau_between_seeds']:.2f} between two; accuracy "
        f"in percent: best {table['best']}, fifth {table['fifth']}, median {table['median']}, worst {table['worst']}."
    )
    sharing = (rows[name]["tau"] for name in ("weight_sharing", "weight_sharing_calibrated"))
    gains = [f"{rows['generated']['tau'] - tau:+.2f}" for tau in sharing]
    lines.append(f"Generated weights over weight sharing in tau: {gains[0]}, and {gains[1]} over it recalibrated.")
    lines.append(f"Gradient steps a seed: {', '.join(f'{name} {value:,}' for name, value in rows['steps'].items())}.")
    lines.append(f"CPU seconds a seed: {', '.join(f'{name} {value:.0f}' for name, value in rows['seconds'].items())}.")
    return "\n".join(lines)


def update_results(path: Path, rows: Mapping[str, Any]) -> None:
    """Write the rows as ``rank``, beside what other commands wrote, and print them."""
    results = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**results, "rank": dict(rows)}, indent=2) + "\n")
    print(text(rows))
