"""The network of a finished trial, from the address that NNI's page hands to Netron, in Netron on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from browser import chromium
from nni_runs import REPOSITORY, Run, ask, wait_until

from nni_dynconv.launching.nnictl import choose_port

WAVES = {
    "space": "own_search:Waves",
    "evaluator": "own_search:evaluator",
    "metric": "val_acc",
    "optimize_mode": "maximize",
    "context": {"name": "vector", "in_features": 2, "dim": 8},
    "strategy": {"rerank": 0, "final_epochs": 1},
}


class Waiting(Run):
    """An experiment under `nni-dynconv nnictl`, which waits for a busy machine's manager."""

    def __init__(self, lab, path):
        self.lab, self.port = lab, choose_port(None)
        status, output, error = lab.run("nnictl", "create", "--config", path, "--port", self.port, timeout=200)
        assert status == 0, output + error
        profile = ask(self.port, "experiment")
        self.id, self.folder = profile["id"], Path(profile["logDir"])


def fetched(address):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=20) as answer:
        return answer.read()


@pytest.fixture
def model(lab, tmp_path):
    """What NNI's server gives for a trial's `model.onnx`, once the trial is over."""
    pytest.importorskip("onnxscript")
    assert lab.run("register")[0] == 0
    code = str(REPOSITORY / "tests")
    trial = "python3 -m nni_dynconv.trial"
    path = lab.write(WAVES, trialCommand=trial, trialCodeDirectory=code, maxTrialNumber=1)
    run = Waiting(lab, path)
    try:
        (job,) = run.wait_for_end(300)
        content = fetched(f"http://127.0.0.1:{run.port}/api/v1/nni/trial-file/{job['trialJobId']}/model.onnx")
        assert content == (Path(job["logPath"]) / "model.onnx").read_bytes()
    finally:
        run.stop()
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    return file


@pytest.mark.nnictl
def test_what_nnis_page_hands_to_netron_is_the_trials_network(model):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(model))
    assert [one.name for one in session.get_inputs()] == ["x", "context"]


@pytest.mark.nnictl
def test_netron_shows_it_on_this_machine(model, tmp_path):
    python = os.environ.get("NETRON_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import netron"], capture_output=True, check=False).returncode:
        pytest.skip("There is no Netron here to open the network in: `pip install netron`.")
    port = choose_port(None)
    code = "import netron, sys; netron.start(sys.argv[1], address=('127.0.0.1', int(sys.argv[2])), browse=False)"
    server = subprocess.Popen([python, "-c", f"{code}; netron.wait()", str(model), str(port)])
    try:
        wait_until(lambda: _answers(port), 30, "Netron")
        shot = Path(os.environ.get("NETRON_SHOT", tmp_path / "netron.png"))
        page = browsed(port, tmp_path, "--dump-dom")
        browsed(port, tmp_path, f"--screenshot={shot}")
    finally:
        server.kill()
        server.wait()
    shown = set(re.findall(r"<text[^>]*>([^<]+)</text>", page))
    assert {"x", "context", "output", "MatMul"} <= shown, sorted(shown)
    assert shot.stat().st_size > 10_000


def browsed(port, place, what):
    command = [chromium(), what, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place / 'profile'}"]
    command += ["--window-size=1200,900", "--virtual-time-budget=20000", f"http://127.0.0.1:{port}/"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def _answers(port):
    try:
        return fetched(f"http://127.0.0.1:{port}/")
    except OSError:
        return None
