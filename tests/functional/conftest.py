"""What `tune` measured in other tests, or in the examples of docstrings, does not count here."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
