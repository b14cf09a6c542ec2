"""How well one ranking foretells another: Kendall's tau with its interval, precision at the top, regret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, kendalltau

from ...errors import RankError

__all__ = ["Fidelity", "fidelity", "interval", "kendall_tau", "precision", "regret"]

DRAWS = 1000
FEWEST = 6  # of 4 pairs, the percentile interval holds the true tau in 80 % of cases instead of 95; of 2, it is a point


class Fidelity(NamedTuple):
    """How well scores foretell the truth.

    Parameters
    ----------
    tau
        Kendall's tau-b.
    low, high
        Its interval; ``None`` where there are fewer than six pairs, too few for one.
    precision
        Share of the ``k`` best by score that are among the ``k`` best in truth.
    regret
        Truth of the best minus truth of the one with the best score, in the truth's own unit.
    k
        How many the precision is about.
    """

    tau: float
    low: float | None
    high: float | None
    precision: float
    regret: float
    k: int


def fidelity(scores: Sequence[float], truth: Sequence[float], k: int = 5, seed: int = 0) -> Fidelity:
    """Compare scores with the truth.

    Parameters
    ----------
    scores, truth
        A number for each architecture, in the same order; higher is better.
    k
        How many of the best the precision is about; no more than there are.
    seed
        Of the interval's resamples.

    Raises
    ------
    RankError
        Fewer than two values, or not as many on both sides, or one is not a number.

    Examples
    --------
    >>> found = fidelity([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0], k=2)
    >>> round(found.tau, 2), found.precision, found.regret
    (0.67, 1.0, 10.0)
    """
    low, high = interval(scores, truth, seed=seed) or (None, None)
    k = min(k, len(scores))
    return Fidelity(kendall_tau(scores, truth), low, high, precision(scores, truth, k), regret(scores, truth), k)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    r"""Return Kendall's rank correlation, tau-b, from -1 to 1; 0 where one side is all ties.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(P - T_1)(P - T_2)}}

    ``C`` pairs in the same order, ``D`` in the opposite, ``T`` tied on one side, of ``P`` pairs.

    Parameters
    ----------
    first, second
        A number for each architecture, in the same order.

    Raises
    ------
    RankError
        Fewer than two values, or not as many on both sides, or one is not a number.

    Examples
    --------
    >>> kendall_tau([1, 2, 3], [1, 3, 2])
    0.333
    """
    return _tau(*_pair(first, second))


def interval(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of Kendall's tau by the percentile bootstrap over pairs; of fewer than six, ``None``.

    Parameters
    ----------
    first, second
        A number for each architecture, in the same order.
    level
        Its coverage.
    draws
        Resamples.
    seed
        Decides them.

    Returns
    -------
    Its lower and its upper end.

    Raises
    ------
    RankError
        Fewer than two values, or not as many on both sides, or one is not a number.

    References
    ----------
    Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    Examples
    --------
    >>> interval([1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7])
    (1.0, 1.0)
    """
    a, b = _pair(first, second)
    if len(a) < FEWEST:
        return None
    how = {"method": "percentile", "confidence_level": level, "n_resamples": draws, "rng": seed}
    found = bootstrap((a, b), _tau, paired=True, vectorized=False, **how).confidence_interval
    return float(found.low), float(found.high)


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.nan_to_num(kendalltau(a, b).statistic))  # SciPy has nan where one side is all ties


def precision(scores: Sequence[float], truth: Sequence[float], k: int) -> float:
    """Return the share of the ``k`` best by score that are among the ``k`` best in truth.

    Parameters
    ----------
    scores, truth
        A number for each architecture, in the same order; higher is better.
    k
        How many of the best.

    Raises
    ------
    RankError
        ``k`` is not from 1 to the number of values; or as of :func:`kendall_tau`.

    Examples
    --------
    >>> precision([1, 2, 3, 4], [4, 3, 2, 1], k=1), precision([1, 2, 3, 4], [1, 2, 4, 3], k=2)
    (0.0, 1.0)
    """
    a, b = _pair(scores, truth)
    if not 1 <= k <= len(a):
        raise RankError(f"`k` is {k}, but must be from 1 to {len(a)}, the number of architectures.")
    best = [set(np.argsort(-one, kind="stable")[:k].tolist()) for one in (a, b)]
    return len(best[0] & best[1]) / k


def regret(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Return the truth of the best minus the truth of what the scores would pick, in the truth's own unit.

    Parameters
    ----------
    scores, truth
        A number for each architecture, in the same order; higher is better.

    Raises
    ------
    RankError
        Fewer than two values, or not as many on both sides, or one is not a number.

    Examples
    --------
    >>> regret([0.3, 0.9, 0.1], [82.5, 82.0, 70.0])
    0.5
    """
    a, b = _pair(scores, truth)
    return float(b.max() - b[a.argmax()])


def _pair(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise RankError(f"{len(first)} scores cannot be compared with {len(second)} results: one each is needed.")
    if len(first) < 2:
        raise RankError(f"A ranking needs two architectures or more, but there is {len(first)}.")
    a, b = (np.array([float(value) for value in values]) for values in (first, second))
    if np.isnan(a).any() or np.isnan(b).any():
        raise RankError("A score or a result is not a number (nan): the training behind it has diverged.")
    return a, b
