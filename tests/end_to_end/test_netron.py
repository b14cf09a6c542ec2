"""The network of a finished trial, from the address that NNI's page hands to Netron, in Netron on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import chromium, driver
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
        (job,) = run.wait_for_end(540)
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


@pytest.fixture
def python():
    """One that has Netron."""
    path = os.environ.get("NETRON_PYTHON", sys.executable)
    if subprocess.run([path, "-c", "import netron"], capture_output=True, check=False).returncode:
        pytest.skip("There is no Netron here to open the network in: `pip install netron`.")
    return path


@pytest.mark.nnictl
def test_netron_shows_it_on_this_machine(python, model, tmp_path):
    port = choose_port(None)
    code = "import netron, sys; netron.start(sys.argv[1], address=('127.0.0.1', int(sys.argv[2])), browse=False)"
    server = subprocess.Popen([python, "-c", f"{code}; netron.wait()", str(model), str(port)])
    shot = Path(os.environ.get("NETRON_SHOT", tmp_path / "netron.png"))
    try:
        wait_until(lambda: _answers(port), 30, "Netron")
        shown = browsed(port, tmp_path, {"x", "context", "output", "MatMul"}, shot)
    finally:
        server.kill()
        server.wait()
    assert {"x", "context", "output", "MatMul"} <= shown, sorted(shown)
    assert shot.stat().st_size > 10_000


class Accepting(BaseHTTPRequestHandler):
    """Says yes to Netron's question about cookies, of this address, and goes on to its page."""

    target = ""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f'<script>document.cookie="consent=1;path=/";location="{self.target}"</script>'.encode())

    def log_message(self, *_):
        pass


SEEN = """
if (document.body.classList.contains("welcome")) return [];  // it still loads
return [...document.querySelectorAll("text")].filter((one) => one.checkVisibility()).map((one) => one.textContent);
"""


def browsed(port, place, wanted, shot):
    """Open Netron's page, wait until it shows some words, and take a picture; return what words it shows."""
    handler = type("Here", (Accepting,), {"target": f"http://127.0.0.1:{port}/"})
    own = choose_port(None)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place / 'browser'}"]
    chrome = {"binary": chromium(), "args": [*options, "--window-size=1200,900"]}
    process = subprocess.Popen([driver(), f"--port={own}"], stdout=subprocess.DEVNULL)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            wait_until(lambda: _answers(own, "status"), 30, "the browser's driver")
            made = told(own, "session", capabilities={"alwaysMatch": {"goog:chromeOptions": chrome}})
            session = f"session/{made['sessionId']}"
            told(own, f"{session}/url", url=f"http://127.0.0.1:{server.server_port}/")
            wait_until(lambda: wanted <= seen(own, session), 60, "the network on Netron's page")
            shot.write_bytes(
                base64.b64decode(json.loads(fetched(f"http://127.0.0.1:{own}/{session}/screenshot"))["value"])
            )
            return seen(own, session)
        finally:
            process.terminate()  # and with it the browser
            process.wait()
            server.shutdown()


def seen(own, session):
    return set(told(own, f"{session}/execute/sync", script=SEEN, args=[]))


def told(own, what, **given):
    """Tell the browser's driver something; return what it says."""
    request = urllib.request.Request(f"http://127.0.0.1:{own}/{what}", json.dumps(given).encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return json.loads(answer.read())["value"]


def _answers(port, what=""):
    try:
        return fetched(f"http://127.0.0.1:{port}/{what}")
    except OSError:
        return None
