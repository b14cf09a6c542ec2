"""Asking NNI's REST interface: past any proxy, and with words where it does not answer as it should."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nni_dynconv.errors import LaunchError
from nni_dynconv.launching.experiment import LocalExperiment
from nni_dynconv.launching.nnictl import choose_port

ANSWERS = {
    "check-status": (200, b'{"status": "RUNNING"}'),
    "trial-jobs": (500, b"broken"),
    "experiment": (200, b"<html>"),
    "trial-file/abc/stderr": (200, b"caf\xc3\xa9 \xff"),
}


class Manager(BaseHTTPRequestHandler):
    """Answers as NNI's manager might."""

    def do_GET(self):
        code, body = ANSWERS.get(self.path.removeprefix("/api/v1/nni/"), (200, b"{"))
        self.send_response(code)
        self.send_header("Content-Length", str(max(len(body), 2)))  # of "{", a part of what is announced
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def manager():
    with HTTPServer(("127.0.0.1", 0), Manager) as server:
        threading.Thread(target=server.serve_forever).start()
        yield LocalExperiment(server.server_address[1])
        server.shutdown()


def test_answers_are_read_past_any_proxy(manager, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert manager.get("check-status") == {"status": "RUNNING"}
    assert manager.trial_file("abc", "stderr") == "café \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("trial-jobs", "500 Server Error"),
        ("experiment", "Expecting value"),
        ("metric-data-latest", "IncompleteRead"),  # it used to come out as itself
    ],
)
def test_an_answer_that_is_none_is_told(path, reason, manager):
    with pytest.raises(LaunchError, match=rf"NNI's manager does not answer on port {manager.port}: {reason}"):
        manager.get(path)


def test_a_manager_that_is_gone_is_told_by_the_reason_alone():
    port = choose_port(None)
    with pytest.raises(LaunchError, match=rf"NNI's manager does not answer on port {port}: \[Errno \d+\] [\w ]+$"):
        LocalExperiment(port).get("check-status")
