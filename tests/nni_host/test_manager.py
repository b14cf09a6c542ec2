"""How NNI's manager is started, and how it starts its tuner: with patience, and settings that nobody else reads."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nni_node
import psutil
import pytest
from nni.experiment import launcher

from nni_dynconv.nni_host import MANAGER, compat
from nni_dynconv.nni_host.dispatcher import PARAMS

NODE = Path(nni_node.__file__).with_name("node")

CHANNEL = """
let resolve, reject;
const promise = new Promise((...both) => { [resolve, reject] = both; });
const connect = { promise, settled: false,
    resolve: () => { connect.settled = true; resolve(); },
    reject: (error) => { connect.settled = true; reject(error); } };
class Server {
    connect = connect;
    init() {
        setTimeout(() => connect.reject(new Error('NNI gives up')), 100);
        return promise;
    }
}
const server = new Server();
exports.getTunerServer = () => server;
"""
MAIN = """
const server = require('./tuner_command_channel').getTunerServer();
const tuner = require('child_process').spawn('PYTHON', ['-m', 'nni', '--exp_params', 'c2VjcmV0'],
    { stdio: ['ignore', 'inherit', 'inherit'], env: process.env, shell: true });
console.log(JSON.stringify(tuner.spawnargs));
setTimeout(() => { if ('HOW' === 'connects') server.connect.resolve(); }, 700);
server.init().then(() => console.log('connected'), (error) => console.log(error.message));
"""
TUNER = """#!/bin/sh
echo "$NNI_DYNCONV_EXP_PARAMS"
[ HOW = dies ] || sleep 1
"""


@pytest.mark.skipif(os.name != "posix", reason="the tuner is a shell script")
@pytest.mark.parametrize(
    ("how", "end"), [("connects", "connected"), ("dies", "Tuner ended before it connected."), ("waits", "Tuner ended")]
)
def test_the_manager_waits_for_a_tuner_that_lives_and_tells_nobody_its_settings(how, end, tmp_path):
    tuner = tmp_path / "tuner"
    tuner.write_text(TUNER.replace("HOW", how))
    tuner.chmod(0o700)
    (tmp_path / "tuner_command_channel.js").write_text(CHANNEL)
    (tmp_path / "main.js").write_text(MAIN.replace("PYTHON", str(tuner)).replace("HOW", how))
    command = [str(NODE), "--require", str(MANAGER), str(tmp_path / "main.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    (started,) = [json.loads(one) for one in lines if one.startswith("[")]
    assert started == [str(tuner), "-m", "nni_dynconv.nni_host.dispatcher", "--exp_params", "-"]
    assert "c2VjcmV0" in lines and any(one.removeprefix("tuner_command_channel: ").startswith(end) for one in lines)
    assert "NNI gives up" not in done.stdout


def test_the_dispatcher_reads_its_settings_from_the_environment(tmp_path):
    settings = base64.b64encode(json.dumps({"tuner": {"name": "NoSuchTuner"}}).encode()).decode()
    environment = {**os.environ, PARAMS: settings, "NNI_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "nni_dynconv.nni_host.dispatcher"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode != 0 and "nosuchtuner" in done.stderr


class Stranger(BaseHTTPRequestHandler):
    """The manager of somebody else."""

    def do_GET(self):
        body = b'{"status": "RUNNING"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def mended(monkeypatch):
    """`nnictl` mended in this process, for a test."""
    for name in ("_start_rest_server", "_check_rest_server"):
        monkeypatch.setattr(launcher, name, getattr(launcher, name))
    mask = os.umask(0o022)
    os.umask(mask)

    def mend(command):
        monkeypatch.setattr(launcher, "_start_rest_server", lambda *_: psutil.Popen([sys.executable, "-c", command]))
        compat.mend_start()
        inside = os.umask(0o077)
        launcher._start_rest_server()
        return inside

    yield mend
    os.umask(mask)


@pytest.mark.whole
def test_another_ones_manager_on_the_port_is_not_taken_for_ones_own(mended):
    """An experiment used to be given to the other launch's manager."""
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        launcher._check_rest_server(port)  # which NNI itself believes
        mended("import time; time.sleep(2); raise SystemExit(1)")
        with pytest.raises(RuntimeError, match=rf"NNI's manager ended with status 1 as it started, on port {port}"):
            launcher._check_rest_server(port)
        server.shutdown()


SLOW = """
import json, time
from http.server import BaseHTTPRequestHandler, HTTPServer
time.sleep(6)
class Manager(BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Manager.asked += 1
        body = b'INITIALIZING' if Manager.asked < 4 else b'{}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
HTTPServer(("127.0.0.1", %d), Manager).serve_forever()
"""


@pytest.mark.whole
def test_a_manager_that_is_slow_is_waited_for_past_its_start_page_and_folders_are_the_users_own(mended, free_port):
    """NNI gives it about four seconds, and reads its start page as JSON."""
    inside = mended(SLOW % free_port)
    try:
        launcher._check_rest_server(free_port)
        assert inside == 0o077
    finally:
        for child in psutil.Process().children():
            child.kill()
            child.wait()


@pytest.fixture
def free_port():
    from nni_dynconv.launching.nnictl import choose_port

    return choose_port(None)
