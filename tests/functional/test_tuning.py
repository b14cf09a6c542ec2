"""``tune``: every path is measured and gives the same; the fastest is used, kept, and set aside by the modes."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
import torch
from functional.loops import tensors

from nni_dynconv.errors import ConfigError
from nni_dynconv.functional import (
    LowRank,
    calling,
    conv1d,
    conv2d,
    conv3d,
    deterministic,
    library,
    linear,
    portable,
    tune,
)
from nni_dynconv.functional.calling import find_plan
from nni_dynconv.functional.explain import chosen
from nni_dynconv.functional.planning.tuning import fastest, wait_for

X, WEIGHT = (4, 6, 9, 9), (4, 6, 1, 5, 5)
OPTIONS = {"padding": 2, "groups": 6}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})


def prefer(monkeypatch, path):
    """Make a path the fastest, as a machine may."""

    def measure(problem, paths, device):
        return fastest(problem, {path: paths[path]}, device)

    monkeypatch.setattr("nni_dynconv.functional.calling.fastest", measure)


def test_a_device_that_torch_cannot_wait_for_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"`tune` cannot measure on `xla:1`: there is no `torch.xla.synchronize`"):
        wait_for(torch.device("xla:1"))


def taken(**more):
    return chosen(X, WEIGHT, **OPTIONS, **more)[1].path


@pytest.mark.parametrize("path", ["grouped", "looped", "unfold", "depthwise", "depthwise_in_chunks"])
def test_what_was_measured_is_used_from_then_on_and_gives_the_same(path, tmp_path, monkeypatch):
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    pull = torch.randn(X)
    right = torch.autograd.grad(conv2d(*inputs, **OPTIONS), inputs, pull)
    prefer(monkeypatch, path)
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    assert taken() == path
    for mine, other in zip(torch.autograd.grad(conv2d(*inputs, **OPTIONS), inputs, pull), right, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_another_process_reads_what_one_has_measured(tmp_path, monkeypatch):
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "deep" / "paths.json"):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    assert taken() != "unfold"
    with tune(tmp_path / "deep" / "paths.json"):
        assert taken() == "unfold"


def test_other_threads_have_measurements_of_their_own(tmp_path, monkeypatch):
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "paths.json"):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    with tune(tmp_path / "paths.json"):
        assert taken() != "unfold"


def test_what_is_known_is_kept_in_a_second_file_too(tmp_path, monkeypatch):
    """Only the first file used to have it."""
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "first.json"):
        conv2d(*inputs, **OPTIONS)
    with tune(tmp_path / "second.json"):
        conv2d(*inputs, **OPTIONS)
    first, second = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second")]
    assert first == second
    (table,) = second.values()
    assert list(table.values()) == ["unfold"]


def test_nothing_is_written_where_all_is_kept(tmp_path, monkeypatch):
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._write", None)
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)


@contextmanager
def other_threads():
    own = torch.get_num_threads()
    torch.set_num_threads(own + 1)
    try:
        yield
    finally:
        torch.set_num_threads(own)


def plan(inputs):
    """The path that a call takes, by the plans that are remembered."""
    return find_plan(2, *inputs, None, (1, 2, 1, 6, None)).path


def test_other_threads_measure_anew_in_one_process(tmp_path, monkeypatch):
    """What was measured used to count for any number of threads, until the process ended."""
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    before = plan(inputs)
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    assert plan(inputs) == taken() == "unfold" != before
    with other_threads():
        assert plan(inputs) == taken() == before
        prefer(monkeypatch, "grouped")
        with tune(tmp_path / "paths.json"):
            conv2d(*inputs, **OPTIONS)
        assert plan(inputs) == taken() == "grouped"
    assert plan(inputs) == taken() == "unfold"
    assert len(json.loads((tmp_path / "paths.json").read_text())) == 2


def rewrite(file, change):
    """Let a file hold something else, in place of all that it holds."""
    table = json.loads(file.read_text())
    file.write_text(json.dumps({key: change(own) for key, own in table.items()}))


@pytest.mark.parametrize(
    "change",
    [
        lambda own: dict.fromkeys(own, "winograd"),
        lambda own: dict.fromkeys(own, "split"),  # a path, but of other problems
        lambda own: {problem: ["grouped"] for problem in own},
        lambda own: list(own),
    ],
)
def test_a_path_that_cannot_serve_is_measured_again(change, tmp_path, monkeypatch):
    """An unknown name used to be a bare `KeyError` in every call."""
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    right = conv2d(*inputs, **OPTIONS)
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    rewrite(tmp_path / "paths.json", change)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    with tune(tmp_path / "paths.json"):
        pass
    torch.testing.assert_close(conv2d(*inputs, **OPTIONS), right, atol=1e-5, rtol=1e-5)
    prefer(monkeypatch, "grouped")
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    assert taken() == "grouped"
    (table,) = json.loads((tmp_path / "paths.json").read_text()).values()
    assert list(table.values()) == ["grouped"]


def test_another_version_of_the_package_measures_anew(tmp_path, monkeypatch):
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "paths.json"):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning.__version__", "99.0")
    with tune(tmp_path / "paths.json"):
        assert taken() != "unfold"


def test_what_was_measured_holds_in_compiled_code(tmp_path, monkeypatch):
    inputs = [one.detach() for one in tensors(X, WEIGHT, dtype=torch.float32)]
    prefer(monkeypatch, "unfold")
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
    graphs = []

    def backend(graph, example):
        graphs.append(graph.code)
        return graph

    compiled = torch.compile(lambda x, weight: conv2d(x, weight, **OPTIONS), fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(*inputs), conv2d(*inputs, **OPTIONS))
    assert "unfold" in graphs[0]
    with other_threads():
        compiled(*inputs)
    assert "unfold" not in graphs[1]


def test_modes_set_it_aside(tmp_path, monkeypatch):
    prefer(monkeypatch, "depthwise")
    with tune(tmp_path / "paths.json"):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    with portable():
        assert taken() == "unfold"
    monkeypatch.setattr(library, "_library", None)
    prefer(monkeypatch, "grouped")
    with tune(tmp_path / "paths.json"):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    assert taken() == "grouped"
    with deterministic():
        assert taken() == "depthwise"


@pytest.mark.parametrize("broken", ["", "[1]", "{"])
def test_a_broken_file_is_replaced(broken, tmp_path):
    file = tmp_path / "paths.json"
    file.write_text(broken)
    with tune(file):
        conv2d(*tensors(X, WEIGHT, dtype=torch.float32), **OPTIONS)
    (table,) = json.loads(file.read_text()).values()
    assert len(table) == 1


@pytest.mark.parametrize(
    ("convolve", "x", "weight"),
    [
        (conv1d, (3, 4, 9), (3, 2, 4, 3)),
        (conv2d, (6, 4, 5, 5), (2, 4, 4, 1, 1)),
        (conv2d, (6, 4, 5, 5), (2, 4, 4, 3, 3)),
        (conv3d, (3, 2, 4, 4, 4), (3, 2, 2, 3, 3, 3)),
    ],
)
def test_every_kind_of_convolution_is_measured_and_stays_right(convolve, x, weight, tmp_path):
    inputs = tensors(x, weight)
    right = convolve(*inputs)
    with tune(tmp_path / "paths.json"):
        torch.testing.assert_close(convolve(*inputs), right)
    torch.testing.assert_close(convolve(*inputs), right)
    (table,) = json.loads((tmp_path / "paths.json").read_text()).values()
    assert table


def test_without_gradients_another_path_may_be_the_fastest(tmp_path):
    inputs = tensors(X, WEIGHT, dtype=torch.float32)
    with tune(tmp_path / "paths.json"):
        conv2d(*inputs, **OPTIONS)
        with torch.no_grad():
            conv2d(*inputs, **OPTIONS)
    (table,) = json.loads((tmp_path / "paths.json").read_text()).values()
    assert len(table) == 2


# Weights given by factors

FACTORED = {"linear": (linear, (4, 3, 16), (16,)), "conv2d": (conv2d, (4, 12, 6, 6), (12, 3, 3))}
factored = pytest.mark.parametrize(("op", "x", "rest"), FACTORED.values(), ids=FACTORED)


def given_factors(x, rest, rank=2, base=False):
    """x and a weight of 16 outputs for each of its samples."""
    shapes = x, (x[0], 16, rank), (x[0], rank, *rest), (16, *rest) if base else None
    made, *parts = tensors(*shapes, dtype=torch.float32)
    return made, LowRank(*parts)


def way(op, x, rest, rank=2, base=False, **more):
    return chosen(x, (x[0], 16, *rest), op=op.__name__, rank=rank, base=base, **more)[1].path


def prefer_way(monkeypatch, name):
    """Make forming, or applying, the faster, as a machine may."""

    def measure(problem, ways, device):
        return fastest(problem, {name: ways[name]} if name in ways else ways, device)

    monkeypatch.setattr("nni_dynconv.functional.calling.fastest", measure)


@pytest.mark.parametrize("name", ["applied", "formed"])
@pytest.mark.parametrize("base", [False, True])
@factored
def test_the_faster_of_applying_and_forming_is_used_and_gives_the_same(op, x, rest, base, name, tmp_path, monkeypatch):
    made, weight = given_factors(x, rest, base=base)
    leaves = [made, *(one for one in weight if one is not None)]

    def step():
        y = op(made, weight)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    right = step()
    prefer_way(monkeypatch, name)
    with tune(tmp_path / "paths.json"):
        step()
    assert way(op, x, rest, base=base) == name
    for mine, other in zip(step(), right, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5 * other.abs().max().item(), rtol=1e-4)


@factored
def test_rank_base_and_gradients_make_other_problems(op, x, rest, tmp_path, monkeypatch):
    prefer_way(monkeypatch, "applied")
    with tune(tmp_path / "paths.json"):
        op(*given_factors(x, rest))
    assert way(op, x, rest) == "applied"
    for other in ({"rank": 3}, {"base": True}, {"training": False}):
        assert way(op, x, rest, **other) == "formed"


@factored
def test_both_ways_are_measured_and_kept_for_another_process(op, x, rest, tmp_path, monkeypatch):
    with tune(tmp_path / "paths.json"):
        op(*given_factors(x, rest))
    (table,) = json.loads((tmp_path / "paths.json").read_text()).values()
    (key,) = [problem for problem in table if "rank=2, base=False" in problem]
    rewrite(tmp_path / "paths.json", lambda own: {**own, key: "applied"})
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    with tune(tmp_path / "paths.json"):
        assert way(op, x, rest) == "applied"
    rewrite(tmp_path / "paths.json", lambda own: {**own, key: "grouped"})
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning._known", {})
    with tune(tmp_path / "paths.json"):
        assert way(op, x, rest) == "formed"


@factored
def test_modes_set_what_was_measured_of_factors_aside(op, x, rest, tmp_path, monkeypatch):
    prefer_way(monkeypatch, "applied")
    with tune(tmp_path / "paths.json"):
        op(*given_factors(x, rest))
        with portable():
            op(*given_factors(x, rest, rank=3))
    for mode in (portable, deterministic):
        with mode():
            assert way(op, x, rest) == "formed"
    assert way(op, x, rest, rank=3) == "formed"


def test_convolutions_inside_of_one_that_is_timed_are_not_looked_up_anew(tmp_path, monkeypatch):
    """The look-up used to count as time of whatever is made of several convolutions."""
    looked_up = []

    def measured(*arguments):
        looked_up.append(arguments)
        return plain(*arguments)

    plain = calling._plan_measured
    monkeypatch.setattr(calling, "_plan_measured", measured)
    with tune(tmp_path / "paths.json"):
        conv2d(*given_factors(*FACTORED["conv2d"][1:]))
    assert len(looked_up) < 10


# Another device


class LateDevice:
    """A device that computes when it is waited for, and its clock."""

    def __init__(self):
        self.clock, self.queue = 0.0, 0.0

    def call(self, seconds):
        self.queue += seconds

    def wait(self, device):
        self.clock, self.queue = self.clock + self.queue + 1e-6, 0.0

    def perf_counter(self):
        return self.clock


def test_another_device_is_waited_for(monkeypatch):
    """Calls used to be timed that had only been handed over."""
    device = LateDevice()
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning.time", device)
    monkeypatch.setattr("nni_dynconv.functional.planning.tuning.wait_for", device.wait)
    paths = {"slow": lambda: device.call(2e-3), "fast": lambda: device.call(1e-3)}
    assert fastest("a problem", paths, torch.device("cuda")) == "fast"
    assert device.queue == 0
