"""One search whose run the tests of this wing look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from own_search import Sequences, searched

import nni_dynconv
from nni_dynconv import export
from nni_dynconv.reporting import add_slides, write_report
from nni_dynconv.runs import Run

SHADES = [np.full((8, 12), shade, np.uint8) for shade in (0, 90, 180)]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Somebody's own search: sequences, a context of two numbers, low-rank deltas, everything recorded."""
    folder = tmp_path_factory.mktemp("runs") / "waves"
    searched(folder)
    add_slides(folder, "Mine, before & after", ["a", "b", "c"], {"before": SHADES, "after": SHADES[::-1]})
    try_few(folder)
    write_report(folder)
    return folder


def try_few(folder):
    """Note what few sets of weights lose, as the command does."""
    held_out = Sequences(96, 1)

    def measure(network):
        with torch.no_grad():
            return {"val_acc": float((network(held_out.x, held_out.context).argmax(1) == held_out.y).float().mean())}

    network, call = nni_dynconv.load(folder), export.example_in(folder).call
    found, _ = export.try_clusters(network, Sequences(96, 0).context.split(16), measure, call, counts=(1, 2, 4))
    Run(folder).clusters.write_text(found.to_json())
