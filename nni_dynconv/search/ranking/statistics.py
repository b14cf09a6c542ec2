"""How well one ranking foretells another: Kendall's tau with its interval, precision at the top, regret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, norm

from ...errors import RankError

__all__ = ["Fidelity", "fidelity", "interval", "kendall_tau", "precision", "regret"]

FEWEST = 8  # of six pairs tau has sixteen values, and the interval covers 91 to 99 % where it says 95
SHRUNK, PLACE = 0.6, 0.5  # chosen by `python -m benchmarks.quality.coverage`, which prints what they give


class Fidelity(NamedTuple):
    """How well scores foretell the truth.

    Parameters
    ----------
    tau
        Kendall's tau-b.
    low, high
        Its interval; ``None`` where there is none, as of fewer than eight pairs; see :func:`interval`.
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


def fidelity(scores: Sequence[float], truth: Sequence[float], k: int = 5) -> Fidelity:
    """Compare scores with the truth.

    Parameters
    ----------
    scores, truth
        A number for each architecture, in the same order; higher is better.
    k
        How many of the best the precision is about; no more than there are.

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
    low, high = interval(scores, truth) or (None, None)
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


def interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    r"""Return the interval of Kendall's tau by the jackknife on Fisher's scale.

    .. math:: \tanh\left(\operatorname{artanh} t \pm z \frac{\sqrt{s^2 (1 - 1/n)^2 + 1/(2n)^2}}{1 - t^2}\right),
        \quad t = \left(1 - \frac{0.6}{n}\right) \tau

    ``s`` is the jackknife's standard error of ``tau`` over ``n`` pairs, ``z`` the normal quantile.

    Parameters
    ----------
    first, second
        A number for each architecture, in the same order.
    level
        Its coverage.

    Returns
    -------
    Its lower and its upper end; ``None`` of fewer than eight pairs, or where one side is all ties.

    Raises
    ------
    RankError
        Fewer than two values, or not as many on both sides, or one is not a number.

    Notes
    -----
    The summand ``1/(2n)`` and the factors ``1 - 0.6/n`` and ``1 - 1/n`` are ours: without them the jackknife covers too
    much where ``tau`` is moderate, and too little where it is so high that few pairs are out of order, of which it has
    a standard error of zero. ``python -m benchmarks.quality.coverage`` prints what they cover.

    References
    ----------
    Samara and Randles, A test for correlation based on Kendall's tau, Communications in Statistics 17, 1988 (variances
    without an assumption on the distribution); Fieller, Hartley and Pearson, Tests for rank correlation coefficients,
    Biometrika 44, 1957 (Fisher's scale).

    Examples
    --------
    >>> low, high = interval(range(8), [1, 2, 3, 4, 5, 6, 8, 7])
    >>> round(low, 2), round(high, 2)
    (0.41, 0.97)
    """
    a, b = _pair(first, second)
    size = len(a)
    if size < FEWEST or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    tau = (1 - SHRUNK / size) * _tau(a, b)
    error = np.hypot((1 - 1 / size) * _jackknife(a, b), PLACE / size) / (1 - tau**2)
    ends = np.arctanh(tau) + norm.ppf((1 + level) / 2) * error * np.array([-1, 1])
    low, high = np.tanh(ends).tolist()
    return low, high


def _jackknife(a: np.ndarray, b: np.ndarray) -> float:
    """Return the standard error of tau-b, out of its values without one pair each."""
    over = [np.sign(one[:, None] - one) for one in (a, b)]
    both, first, second = over[0] * over[1], over[0] ** 2, over[1] ** 2
    agree, *apart = (one.sum() - 2 * one.sum(1) for one in (both, first, second))
    scale = np.sqrt(apart[0] * apart[1])
    without = np.divide(agree, scale, out=np.zeros_like(scale), where=scale > 0)
    return float(np.sqrt((len(a) - 1) * without.var()))


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.nan_to_num(kendalltau(a, b).statistic))  # SciPy has nan where one side is all ties


def precision(scores: Sequence[float], truth: Sequence[float], k: int) -> float:
    """Return the share of the ``k`` best by score that are among the ``k`` best in truth.

    What ties with the last of the ``k`` best in truth is among them. Of scores that tie for the last place each gets it
    as often as the others: it is the mean over all orders.

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
    >>> precision([1, 1, 1, 1], [4, 3, 2, 1], k=2)
    0.5
    """
    a, b = _pair(scores, truth)
    if not 1 <= k <= len(a):
        raise RankError(f"`k` is {k}, but must be from 1 to {len(a)}, the number of architectures.")
    last_score, last_truth = (np.sort(one)[-k] for one in (a, b))
    tied = a == last_score
    places, among = k - (a > last_score).sum(), b >= last_truth
    return float(((a > last_score)[among].sum() * tied.sum() + tied[among].sum() * places) / (k * tied.sum()))


def regret(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Return the truth of the best minus the truth of what the scores would pick, in the truth's own unit.

    Of scores that tie for the best it is the mean.

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
    return float(b.max() - b[a == a.max()].mean())


def _pair(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise RankError(f"{len(first)} scores cannot be compared with {len(second)} results: one each is needed.")
    if len(first) < 2:
        raise RankError(f"A ranking needs two architectures or more, but there is {len(first)}.")
    a, b = (np.array([float(value) for value in values]) for values in (first, second))
    if np.isnan(a).any() or np.isnan(b).any():
        raise RankError("A score or a result is not a number (nan): the training behind it has diverged.")
    return a, b
