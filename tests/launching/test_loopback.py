"""The preload of NNI's manager: whichever way a server is told to listen, it does so on this machine only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nni_node
import pytest

from nni_dynconv.launching.nnictl import PRELOAD

NODE = Path(nni_node.__file__).with_name("node")
LISTEN = """
const server = require('net').createServer();
const told = () => {{ console.log(JSON.stringify(server.address())); server.close(); }};
server.on('listening', told);
server.listen({arguments});
"""


def listening(arguments):
    command = [str(NODE), "--require", str(PRELOAD), "-e", LISTEN.format(arguments=arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WAYS = ["0", "'0'", "", "() => {}", "undefined", "null", "0, () => {}", "0, '0.0.0.0'", "undefined, '0.0.0.0'"]
WAYS += ["0, undefined, 511, () => {}", "0, 511", "{port: 0}", "{port: 0, host: '0.0.0.0'}", "{port: undefined}"]


@pytest.mark.parametrize("arguments", WAYS)
def test_a_server_listens_on_this_machine_only(arguments):
    """Without a port, or with an `undefined` one, it used to listen on all interfaces."""
    assert listening(arguments)["address"] == "127.0.0.1"


def test_a_path_stays_a_path(tmp_path):
    assert listening(f"'{tmp_path}/socket'") == f"{tmp_path}/socket"
    assert listening(f"{{path: '{tmp_path}/socket'}}") == f"{tmp_path}/socket"
