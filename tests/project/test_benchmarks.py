"""The benchmarks of operators and search steps: fair contenders, any device, and the tables that they fill."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices import META, OneDevice
from often import by_default, each_once

from nni_dynconv.functional import library
from nni_dynconv.functional.paths import kernels

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODULES = [path.stem for path in FOLDER.glob("*.py")]
OPS = [
    "conv 3x3",
    "separable 5x5",
    "conv 3x3 stride 2",
    "depthwise 3x3 stride 2",
    "conv 5x5 to 3 outputs",
    "transposed conv 4x4 stride 2",
    "conv1d 5",
    "conv3d 3x3x3",
    "linear",
]
CARD = {
    "device": "cuda:0", "card": "NVIDIA H100", "capability": "9.0", "memory, GiB": 79.2, "cuda": "13.0", "cudnn": 91000,
    "tf32": False, "torch": "2.13.0", "cpu": "Xeon", "cores": 16, "threads": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def bench():
    """The modules by name, as the scripts import each other; other modules of these names are set aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        names = ("accelerators", "bound", "contenders", "ops", "report", "steps", "supernets", "timing")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("op", OPS)
def test_all_ways_compute_the_same(op, bench):
    (first, *_) = layers = bench.ops.ALL[op]
    B, C, HW = 3, 4, 6
    x = torch.randn(first.x_shape(B, C, HW))
    for layer in layers:
        weight = torch.randn(B, *layer.weight_shape(C))
        ways, options = bench.contenders.ways(layer.function), layer.options(C)
        found = {name: way(x, weight, **options) for name, way in ways.items() if name != "static"}
        for y in found.values():
            torch.testing.assert_close(y, found["loop"], atol=1e-4, rtol=1e-4)
        assert ways["static"](x, weight[0], **options).shape == layer.y_shape(B, C, HW)
        x = found["ours"]
    assert x.shape == layers[-1].y_shape(B, C, HW)


def test_the_roofline_counts_multiply_adds_as_explain_does(bench):
    chosen = importlib.import_module("nni_dynconv.functional.explain").chosen
    for layer, *_ in bench.ops.ALL.values():
        shapes = layer.x_shape(3, 4, 6), (3, *layer.weight_shape(4))
        geometry = chosen(*shapes, op=layer.function, **layer.options(4))[0]
        assert layer.multiply_adds(3, 4, 6) == geometry.multiply_adds


@each_once(op=OPS, mode=["fwd", "fwd+bwd"])
def test_an_operator_is_measured_on_another_device(op, mode, bench):
    limits = bench.contenders.Limits(1e12, {1 << 30: 1e11})
    with OneDevice():
        row, alone = bench.ops._measure(op, 2, 4, 8, mode, limits, 0.0, META)
    assert alone is None  # no compiled kernel serves there
    assert list(row) == [
        "op", "B", "C", "HW", "K", "mode", "path", "over", "self", "microseconds", "roofline microseconds",
    ]  # fmt: skip
    assert list(row["over"]) == ["loop", "grouped", "vmap", "static", "roofline"]


def test_limits_are_measured_on_another_device(bench):
    with OneDevice():
        limits = bench.contenders.measure_limits(1e-3, META)
    assert limits.flops > 0 and list(limits.copies) == [1 << power for power in (21, 23, 25, 27, 29)]


@pytest.mark.parametrize("sampler", by_default("random", of=["random", "gdas", "darts", "enas"], otherwise="slow"))
def test_a_search_step_is_measured_on_another_device(sampler, bench, monkeypatch):
    monkeypatch.setattr(bench.steps, "PATHS", 1)
    size = {"B": 2, "C": 4, "HW": 8, "layers": 1}
    with OneDevice():
        row = bench.steps._measure("dense", sampler, "per_sample", size, 0.0, META)
    assert list(row["milliseconds"]) == ["nni", "ours", "given"]
    assert "torch_alone_over_nni_static" not in row
    assert "torch alone" not in bench.steps._summary(row)


def test_a_turn_ends_when_the_device_is_done(bench, monkeypatch):
    clock = SimpleNamespace(now=0.0, queued=0.0)

    def wait(device):
        assert device.type == "cuda"
        clock.now, clock.queued = clock.now + clock.queued + 1e-9, 0.0

    def call(seconds):
        clock.queued += seconds

    monkeypatch.setattr(bench.timing, "wait_for", wait)
    contenders = {"one": lambda: call(1e-3), "three": lambda: call(3e-3)}
    times = bench.timing.interleave(contenders, 0.1, device=torch.device("cuda"), clock=lambda: clock.now)
    assert bench.timing.ratio(times, "three", "one").median == pytest.approx(3, rel=1e-3)
    assert max(times["one"]) == pytest.approx(1e-3, rel=1e-3)  # nothing of what the other had queued


@pytest.mark.skipif(not library.loaded(), reason="the compiled kernels are not built")
def test_the_bound_comes_from_copies_and_leaves_the_kernels_as_they_were(bench):
    before = kernels._convolve, kernels._differentiate
    inputs = bench.ops.make_inputs(bench.bound.OP, 2, 3, 8, True)
    run = bench.bound.copying(lambda: bench.ops.contender(bench.bound.OP, 3, True, "ours", inputs)())
    dx, *_ = run()
    torch.testing.assert_close(dx, inputs.pulls[0], rtol=0, atol=0)
    assert (kernels._convolve, kernels._differentiate) == before
    assert set(bench.bound.measure(2, 3, 8, 0.01)) == {"ours", "copies"}


def test_no_contender_always_comes_after_the_same_one(bench):
    turns, now = [], itertools.count()
    contenders = {name: partial(turns.append, name) for name in "abc"}
    bench.timing.interleave(contenders, 0, least_rounds=30, turn=0, clock=lambda: 1e-3 * next(now))
    rounds = [turns[start : start + 6 : 2] for start in range(6, len(turns), 6)]  # each one is called twice
    assert len(rounds) == 30 and all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 6


def test_a_device_that_is_not_there_is_refused(bench, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: None)
    with pytest.raises(
        SystemExit, match=r"`--device cuda`: there is no such device here, only cpu\.\n .*built for CPUs"
    ):
        bench.accelerators.open_device("cuda")
    with pytest.raises(SystemExit, match=r"`--device gpu`: torch knows no such device\. There is: cpu\."):
        bench.accelerators.open_device("gpu")


def test_one_of_two_cards_is_opened_by_its_number(bench, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert bench.accelerators.open_device("cuda") == torch.device("cuda:0")
    assert bench.accelerators.open_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SystemExit, match=r"only cpu, cuda:0, cuda:1\.\n .*CUDA_VISIBLE_DEVICES is '0,1'"):
        bench.accelerators.open_device("cuda:2")


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("", "results.json"),
        ("--device cpu:0", "results.json"),
        ("--device cuda:1", "results_gpu.json"),
        ("--device cuda --output mine.json", "mine.json"),
    ],
)
def test_each_kind_of_device_has_its_file(words, file, bench):
    parser = argparse.ArgumentParser()
    bench.accelerators.add_options(parser)
    assert Path(bench.accelerators.output_of(parser.parse_args(words.split()))).name == file


def test_the_card_is_named(bench, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    about = bench.timing.machine(torch.device("cuda:0"))
    assert (about["card"], about["capability"], about["memory, GiB"]) == ("NVIDIA H100", "9.0", 80.0)
    assert about["cpu"] and "card" not in bench.timing.machine()


def row_of(op, sizes, mode="fwd"):
    over = {"loop": 3.0, "grouped": 2.0, "vmap": 4.0, "static": 1.0, "roofline": 1.5}
    return {"op": op, **dict(zip(("B", "C", "HW"), sizes, strict=True)), "mode": mode, "over": over,
            "roofline microseconds": 60.0}  # fmt: skip


def test_the_report_has_a_gpu_once_it_was_measured(bench):
    results = json.loads((FOLDER / "results.json").read_text())
    step = {
        "space": "dense", "sampler": "gdas", "nni": "GumbelDARTS", "context": "per_sample", "over_nni_static": 0.5,
        "generation_share": 0.25,
    }  # fmt: skip
    gpu = {"machine": CARD, "rows": [row_of("conv 3x3", (8, 16, 32))], "rows_torch": []}
    without = list(bench.report.report(results, {}))
    lines = list(bench.report.report(results, {**gpu, "machines": {"steps": CARD}, "steps": [step]}))
    assert lines[: len(without)] == without and "## On a GPU" not in without
    text = "\n".join(lines[len(without) :])
    card = "NVIDIA H100, capability 9.0, 79.2 GiB, CUDA 13.0, cuDNN 91000, no TF32, torch 2.13.0, with Xeon"
    assert f"Operators, on {card}. Shapes: B 8, C 16, H = W 32." in text
    assert "| conv 3x3 | fwd | 2.00 | 2.00 | 1.00 | 1.5 |" in text
    assert "| dense | gdas | GumbelDARTS | per sample | 0.50 | 25% |  |" in text


def test_the_report_names_the_shapes_of_each_operator(bench):
    rows = [row_of("conv 3x3", (8, 16, 32)), row_of("conv 3x3", (32, 16, 32)), row_of("conv1d 5", (8, 16, 8))]
    assert bench.report._shapes(rows) == (
        "B 8, 32, C 16, H = W 32; B 8, C 16, H = W 8 for conv1d 5 (conv1d: L = H x W)"
    )
