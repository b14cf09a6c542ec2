"""Each trial is counted once, whatever it does, in a line that adds up."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from nni_dynconv.launching.outcome import outcome_of

STATUS = ["SUCCEEDED", "FAILED", "EARLY_STOPPED", "USER_CANCELED", "SYS_CANCELED", "RUNNING", "WAITING", "UNKNOWN"]
LIES = [
    0.5,
    -3,
    float("nan"),
    float("inf"),
    "good",
    "",
    None,
    [],
    {"default": 1.0},
    {"default": "x"},
    {"loss": 1},
    True,
]


def job(number, status, values, coded=2):
    def data(value):
        for _ in range(coded):
            value = json.dumps(value)
        return {"data": value}

    return {"trialJobId": f"t{number}", "status": status, "logPath": "none", "finalMetricData": [*map(data, values)]}


def test_liars_are_counted_by_what_they_did():
    reports = [[0.5], [0.25, 0.75], [float("nan")], [float("inf")], ["good"], [], [float("nan"), 0.1]]
    jobs = [job(number, "SUCCEEDED", values) for number, values in enumerate(reports)]
    jobs += [job(7, "FAILED", [0.9]), job(8, "USER_CANCELED", []), job(9, "RUNNING", [])]
    outcome = outcome_of(jobs, "maximize")
    assert outcome.told() == (
        "Trials: 10 = 3 succeeded, 1 failed, 4 without a result (1 NaN, 1 infinite, 1 no number, 1 nothing), "
        "1 stopped, 1 unfinished; 2 reported more than once."
    )
    assert outcome.metric == 0.5 and outcome.best["trialJobId"] == "t0", "the first report counts, as in the tuner"


trials = st.tuples(st.sampled_from(STATUS), st.lists(st.sampled_from(LIES), max_size=3), st.sampled_from([1, 2]))


@settings(max_examples=100, deadline=None)
@given(st.lists(trials, max_size=12), st.sampled_from(["maximize", "minimize"]))
def test_the_line_adds_up(told, mode):
    outcome = outcome_of([job(number, *one) for number, one in enumerate(told)], mode)
    assert sum(outcome.counts.values()) == len(told) == len(outcome.evaluated)
    line = outcome.told().partition(";")[0]
    numbers = [int(one) for one in re.findall(r"\d+", re.sub(r"\(.*?\)", "", line))]
    assert numbers[0] == sum(numbers[1:]) == len(told)
