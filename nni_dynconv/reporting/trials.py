"""``trials.csv`` of an experiment: a line for each trial, with its settings, architecture and results."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["trials_csv"]


def trials_csv(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return trials as a table for spreadsheets; what is nested has a column for each part, by its dotted name.

    Parameters
    ----------
    trials
        Rows as an experiment knows them: numbers and words, or mappings of them.

    Examples
    --------
    >>> print(trials_csv([{"trial": "a", "architecture": {"op": "conv"}}, {"trial": "b", "result": 0.5}]), end="")
    trial,architecture.op,result
    a,conv,
    b,,0.5
    """
    rows = [dict(_flat(one)) for one in trials]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{before}{name}.")
        elif one is not None:
            yield f"{before}{name}", one
