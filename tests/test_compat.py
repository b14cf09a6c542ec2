"""Each mend of `compat.py` against what NNI does without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

RESUMED = """
import sys
from nni.runtime import msg_dispatcher
from nni.runtime.msg_dispatcher import MsgDispatcher
from nni_dynconv.compat import mend_resume

class Tuner:
    got = []
    def import_data(self, data):
        self.got += data

class Bare(MsgDispatcher):
    def __init__(self):
        self.recovered_max_param_id, self.recovered_trial_params = -1, {}
        self.tuner, self.assessor = Tuner(), None

if "mended" in sys.argv:
    mend_resume()
    mend_resume()
dispatcher = Bare()
final = {"type": "FINAL", "value": '{"default": 1.0, "proposal": 2}'}
dispatcher.handle_report_metric_data({"parameter_id": 2, **final})  # an interrupted trial ended before all was loaded
print(len(Tuner.got))
dispatcher.handle_add_customized_trial([])
dispatcher.handle_report_metric_data({"parameter_id": 0, **final})  # the first trial of this run
print(len(Tuner.got))
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_without_the_mend_a_resumed_dispatcher_drops_a_result_and_dies():
    done = run(RESUMED)
    assert done.stdout.splitlines()[-1] == "0" and "KeyError: 0" in done.stderr


def test_with_the_mend_every_result_reaches_the_tuner():
    done = run(RESUMED, "mended")
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == ["1", "2"], done.stderr


ORDER = "import nni.nas.oneshot.pytorch.strategy; from nni.nas.strategy import DARTS; print(DARTS.__name__)"


@pytest.mark.parametrize(("before", "name"), [("", "ImportFailedStrategy"), ("import nni_dynconv.nas; ", "DARTS")])
def test_nnis_strategies_are_there_in_the_right_order_of_imports_only(before, name):
    assert name in run(before + ORDER).stdout.splitlines()


def test_importing_nni_nas_through_the_package_is_quiet():
    noisy, quiet = (run(f"import {name}").stderr for name in ("nni.nas.nn.pytorch", "nni_dynconv.nas"))
    assert "is found to be not a nn.Module" in noisy and "is found to be not a nn.Module" not in quiet
