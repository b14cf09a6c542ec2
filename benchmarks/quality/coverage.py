"""How often the interval of Kendall's tau holds the true one: prints a table, writes ``coverage.json``.

Pairs are drawn of which tau is known: normal ones, those of a t distribution with two degrees of freedom, whose
extremes go together, of a Clayton copula, whose worst ones do, and normal ones of which one side has ten values only,
so that many tie. About three minutes on one idle core::

    python -m benchmarks.quality.coverage
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau, norm

from nni_dynconv.search.ranking import interval

SIZES = (6, 7, 8, 10, 12, 16, 20, 30, 40)
TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
TIED = 10
LARGE = 4000
Pairs = tuple[np.ndarray, np.ndarray]


def normal(tau: float, size: int, generator: np.random.Generator) -> Pairs:
    """Return normal pairs of this tau: their correlation is ``sin(pi tau / 2)``."""
    x, noise = generator.standard_normal((2, size))
    correlation = math.sin(math.pi * tau / 2)
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def heavy(tau: float, size: int, generator: np.random.Generator) -> Pairs:
    x, y = normal(tau, size, generator)
    scale = np.sqrt(generator.chisquare(2, size) / 2)
    return x / scale, y / scale


def clayton(tau: float, size: int, generator: np.random.Generator) -> Pairs:
    x, other = generator.random((2, size))
    theta = 2 * tau / (1 - tau)
    return x, ((other ** (-theta / (1 + theta)) - 1) * x**-theta + 1) ** (-1 / theta) if tau else other


def tied(tau: float, size: int, generator: np.random.Generator) -> Pairs:
    x, y = normal(tau, size, generator)
    return x, np.floor(TIED * norm.cdf(y))


CASES: dict[str, Callable[[float, int, np.random.Generator], Pairs]] = {
    "normal": normal,
    "heavy": heavy,
    "clayton": clayton,
    "tied": tied,
}


def truth(case: str, tau: float, generator: np.random.Generator) -> float:
    """Return the tau of all pairs that there could be: with ties, of many."""
    return float(kendalltau(*CASES[case](tau, LARGE, generator)).statistic) if case == "tied" else tau


def coverage(case: str, tau: float, size: int, draws: int, seed: int = 0) -> float | None:
    """Return the share of draws whose interval holds the true tau, in percent; ``None`` where none is given."""
    generator = np.random.default_rng([seed, size, round(100 * tau)])
    true = truth(case, tau, generator)
    found = [interval(*CASES[case](tau, size, generator)) for _ in range(draws)]
    given = [one for one in found if one is not None]
    return 100 * fmean(one[0] <= true <= one[1] for one in given) if given else None


def row(size: int, cells: dict[str, dict[str, float | None]]) -> str:
    """Write the least and the most of each case, over all taus."""
    words = [f"{size:>5}"]
    for case in CASES:
        values = [one for one in cells[case].values() if one is not None]
        words.append(f"{min(values):.1f} to {max(values):.1f}".rjust(16) if values else "not given".rjust(16))
    return "".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    print(f"Coverage of the 95 % interval in percent, least and most over true taus of {TAUS}:")
    print("pairs" + "".join(case.rjust(16) for case in CASES))
    found: dict[int, dict[str, dict[str, float | None]]] = {}
    for size in options.sizes:
        found[size] = {case: {str(tau): coverage(case, tau, size, options.draws) for tau in TAUS} for case in CASES}
        print(row(size, found[size]), flush=True)
    options.output.write_text(json.dumps({"draws": options.draws, "coverage": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
