"""Each sampler that learns finds planted best architectures, whatever norm stands behind a choice."""

from __future__ import annotations

import json

import pytest
from planted import NORMS, SEEDS, SPACES

from benchmarks.quality.planted import PACES, TABLE, find, is_best

# Settings of DARTS beside its default, each on its own.
OPTIONS = [
    {"mixture": "softmax"},
    {"mixture": "softmax", "beta_decay": 0.03},
    {"mixture": "softmax", "unroll": 0.01},
    {"mixture": "dirichlet", "unroll": 0.01},
]
CELLS = [(sampler, space, norm) for sampler in PACES for space in SPACES for norm in NORMS]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("space", "norm"), [("branches", "batch"), pytest.param("residual", "group", marks=pytest.mark.slow)]
)
def test_gdas_finds_the_planted_best(space, norm):
    """A norm behind the choice used to cancel what it learned by."""
    assert is_best(space, find("gdas", space, norm, SEEDS[0]).export())


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "space", "norm"), CELLS)
def test_a_planted_best_architecture_is_found_from_9_of_10_seeds(sampler, space, norm):
    found = [find(sampler, space, norm, seed).export() for seed in SEEDS]
    assert sum(is_best(space, one) for one in found) >= 9, found


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_darts_find_the_planted_best_where_no_norm_hides_a_size(options, monkeypatch):
    pace = PACES["darts"]
    monkeypatch.setitem(PACES, "option", pace._replace(settings={**pace.settings, **options}))
    assert all(is_best("branches", find("option", "branches", "none", seed).export()) for seed in SEEDS[:3])


@pytest.mark.parametrize(("sampler", "space", "norm"), CELLS)
def test_no_more_than_one_search_that_was_measured_missed(sampler, space, norm):
    """Searches that were not run yet have no row: the slow tests run all of them."""
    cell = {"sampler": sampler, "space": space, "norm": norm}
    rows = [row for row in json.loads(TABLE.read_text()) if cell.items() <= row.items()]
    seeds = [row["seed"] for row in rows]
    assert set(seeds) <= set(SEEDS) and len(set(seeds)) == len(seeds)
    assert all(row["best"] == is_best(space, row["found"]) for row in rows)
    assert sum(not row["best"] for row in rows) <= 1, rows
