"""Each numbered example runs to its end, in a process, a folder and a home of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("0*.py"))
SAMPLERS = ["random", "enas", "darts", "gdas"]


def run(example, folder, *arguments, length=("--fast",)):
    """Run ``python EXAMPLE --fast`` in a folder and give what it printed."""
    own = {"HOME": str(folder / "home"), "NNI_CONFIG_DIR": str(folder / "nni"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(example), *length, *arguments],
        cwd=folder,
        env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.whole
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_to_its_end(example, tmp_path):
    assert "found {" in run(example, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_experiment_runs_with_each_sampler_and_its_network_loads(sampler, tmp_path):
    import nni_dynconv

    run(ROOT / "examples" / "02_nas_experiment.py", tmp_path, "--sampler", sampler)
    network = nni_dynconv.load(tmp_path / "runs" / "digits")
    assert set(network.architecture) == {"stem", "body"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_evolution_scores_no_worse_than_the_sampler_and_than_random_search_from_2_of_3_seeds(tmp_path):
    wins = []
    for seed in range(3):
        printed = run(ROOT / "examples" / "03_evolve_after_search.py", tmp_path, "--seed", str(seed), length=())
        export, random, evolution = map(float, re.findall(r"score (-\d+\.\d+)", printed))
        wins.append((evolution >= export, evolution >= random))
    assert all(sum(column) >= 2 for column in zip(*wins, strict=True)), wins


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_under_60_lines(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


def test_there_is_a_plain_loop_and_an_experiment():
    assert {"01_plain_loop.py", "02_nas_experiment.py"} <= {example.name for example in EXAMPLES}
