"""Thresholds of the findings, and where they come from.

Healthy values are those of ``benchmarks/quality/doctor.json`` (``python -m benchmarks.quality.doctor``): the spaces of
``examples/digits.py``, with base ``none``, and of the quickstart, with base ``learned``, each with the samplers random,
GDAS, DARTS and ENAS, on three seeds, untrained and in runs of 60 steps. They stand beside each threshold. A fault ten
times off leaves them by far at the start. In training, weights and gains leave the static twin's by what they learn,
and a branch may be turned down (``--steps 600 --output FILE`` gives the values of longer runs): thresholds for then
are wide, and tell only what no healthy run came near.
"""

from __future__ import annotations

START = 0.01  # of the search: nothing is trained yet
EARLY = 0.5  # of the search: too early to have decided
START_SCALE = 4.0  # weights over static, 1.4 to 1.9; values made, 0.91 to 1.1
START_GAIN = 20.0  # gain over static, 0.69 to 5.4: a single draw of few weights on inputs that are not centred
TRAINED_SCALE = 40.0  # 1.1 to 2.8
TRAINED_GAIN = 400.0  # 0.21 to 7.3
LEAST_MADE = 1e-3  # 0.8 to 1.8
LEAST_VARIATION = 1e-3  # 0.025 to 0.45
LEAST_GRADIENT = 1e-9  # of candidates 0.00066 to 21, of the context 0.054 to 7.6
LEAST_LESSON = 1e-5  # behind a norm the factor of GDAS leaves less than 1e-6
LEAST_GAP = 0.002  # a note only: it is below in healthy runs of few steps
LEAST_DEVIATION = 1e-4  # 0.38 to 1
LEAST_ENTROPY = 0.1  # 0.074 to 1: below it in one run, at its end, when it is normal
SKIPS = 2 / 3  # of the choices
WON = 3.0  # odds of a winner over those of equal candidates: p = 3/4 of two, 1/2 of four, 3/10 of eight
LEFT = 0.006  # of the first running statistics, 0 and 1: with torch's momentum, 0.1, after 50 updates
STALE_SHIFT = 3.0  # 0.12 to 0.73
STALE_VARIANCE = 10.0  # 0.71 to 1.5
WORSE = 3.0  # loss over that of the first weights: what is trained is below it

CODES = (
    "not-finite",
    "diverged",
    "controller-zero",
    "scale",
    "gain",
    "weights-astray",
    "context-alike",
    "context-ignored",
    "context-detached",
    "context-unused",
    "delta-asleep",
    "candidate-dead",
    "candidate-untrained",
    "candidate-unseen",
    "choice-dead",
    "norm-mode",
    "norm-stale",
    "sampler-collapsed",
    "skips-dominate",
)


def at_the_start(progress: float | None) -> bool:
    """Whether nothing is trained yet."""
    return progress is not None and progress < START
