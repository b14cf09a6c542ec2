"""One search whose run the tests of this wing look at."""

from __future__ import annotations

import numpy as np
import pytest
from own_search import searched

from nni_dynconv.reporting import add_slides, write_report

SHADES = [np.full((8, 12), shade, np.uint8) for shade in (0, 90, 180)]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Somebody's own search: sequences, a context of two numbers, low-rank deltas, everything recorded."""
    folder = tmp_path_factory.mktemp("runs") / "waves"
    searched(folder)
    add_slides(folder, "Mine, before & after", ["a", "b", "c"], {"before": SHADES, "after": SHADES[::-1]})
    write_report(folder)
    return folder
