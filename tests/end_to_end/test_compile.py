"""A step of one fixed architecture goes through `torch.compile` in one graph, and computes what it computes eagerly."""

from __future__ import annotations

import pytest
import torch
from spaces import CellSpace, Everything, OneChoice, differing_in_threads, image, vector

from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext
from nni_dynconv.functional import conv2d, deterministic, library, portable, without_kernels


class Backend:
    """Counts the graphs that it is given, and runs them as `backend` would."""

    def __init__(self, backend="aot_eager"):
        self.graphs, self.backend = 0, torch._dynamo.lookup_backend(backend)
        self.code = ""  # of the last graph

    def __call__(self, graph, example):
        self.graphs += 1
        self.code = graph.code
        return self.backend(graph, example)


@pytest.fixture(autouse=True)
def _anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make(space=OneChoice, context=True, base="none"):
    torch.manual_seed(0)
    encoder = VectorContext(5, 8) if context else None
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=encoder, base=base).eval()
    return mutator, {"op": "5x5"} if space is OneChoice else mutator.reset()


def step(run, module):
    module.zero_grad()
    y = run()
    y.square().mean().backward()
    return {"y": y.detach(), **{name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}}


@pytest.mark.whole
def test_a_frozen_network_is_one_graph():
    mutator, sample = make(Everything, base="learned")
    network, backend = mutator.freeze(sample), Backend()
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    expected = step(lambda: network(image(), vector()), network)
    torch.testing.assert_close(step(lambda: compiled(image(), vector()), network), expected, rtol=1e-4, atol=1e-5)
    assert backend.graphs == 1


@pytest.mark.parametrize(
    ("space", "inside"), [(OneChoice, True), pytest.param(CellSpace, False, marks=pytest.mark.whole)]
)
def test_a_step_under_using_is_one_graph(space, inside):
    mutator, sample = make(space)
    backend = Backend()

    def forward(x, context):
        if not inside:
            return mutator(x, context=context)
        with mutator.using(sample):
            return mutator(x, context=context)

    compiled = torch.compile(forward, fullgraph=True, backend=backend)
    with mutator.using(sample):
        expected = step(lambda: mutator(image(), context=vector()), mutator)
        found = step(lambda: compiled(image(), vector()), mutator)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert backend.graphs == 1


def test_weights_that_all_samples_share_compile_too():
    mutator, sample = make(context=False)
    network = mutator.freeze(sample)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image()), network(image()))


@pytest.mark.whole
def test_each_architecture_is_compiled_once_and_is_never_taken_for_another():
    mutator, _ = make()
    backend = Backend("eager")
    compiled = torch.compile(mutator, fullgraph=True, backend=backend)
    for name in ("3x3", "5x5", "3x3", "pool", "5x5"):
        with mutator.using({"op": name}):
            torch.testing.assert_close(compiled(image(), context=vector()), mutator(image(), context=vector()))
    assert backend.graphs == 3


@pytest.mark.whole
def test_the_drawn_architecture_compiles_until_another_is_drawn():
    mutator, _ = make()
    backend = Backend("eager")
    compiled = torch.compile(mutator, fullgraph=True, backend=backend)
    drawn = set()
    for _ in range(4):
        drawn.add(mutator.reset()["op"])
        torch.testing.assert_close(compiled(image(), context=vector()), mutator(image(), context=vector()))
    assert backend.graphs == len(drawn) > 1


@pytest.mark.whole
def test_threads_do_not_meet_in_a_compiled_network():
    mutator, _ = make()
    compiled = torch.compile(mutator, fullgraph=True, backend="eager")
    expected = {}
    for name in ("3x3", "5x5"):
        with mutator.using({"op": name}):
            expected[name] = mutator(image(), context=vector())
            compiled(image(), context=vector())

    assert not differing_in_threads(mutator, lambda: compiled(image(), context=vector()), expected, atol=1e-5)


def test_an_index_compiles_to_one_set_a_sample():
    """How many contexts are used depends on values, which a graph does not."""
    mutator, sample = make()
    index = torch.tensor([1, 0, 1])
    compiled = torch.compile(mutator, fullgraph=True, backend="eager")
    with mutator.using(sample):
        found = compiled(image(), context=vector()[:2], index=index)
        torch.testing.assert_close(found, mutator(image(), context=vector()[:2], index=index))


@pytest.mark.whole
def test_bfloat16_compiles():
    mutator, sample = make()
    network = mutator.freeze(sample)
    compiled = torch.compile(network, fullgraph=True, backend=Backend())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(image(), vector()), network(image(), vector()), rtol=0.1, atol=0.1)


def depthwise(x, weight):
    return conv2d(x, weight, padding=2, groups=6)


def depthwise_inside(mode):
    def run(x, weight):
        with mode():
            return depthwise(x, weight)

    return run


MODES = pytest.mark.parametrize("mode", [deterministic, without_kernels, portable])


@MODES
def test_a_mode_inside_of_what_is_compiled_holds(mode):
    """It used to break the graph, and the compiled kernel ran all the same."""
    x, weight = torch.randn(4, 6, 9, 9), torch.randn(4, 6, 1, 5, 5)
    backend = Backend("eager")
    found = torch.compile(depthwise_inside(mode), fullgraph=True, backend=backend)(x, weight)
    torch.testing.assert_close(found, depthwise_inside(mode)(x, weight), rtol=0, atol=0)
    assert backend.graphs == 1
    assert "nni_dynconv" not in backend.code


@MODES
@pytest.mark.skipif(not library.loaded(), reason="the kernels are not built")
def test_a_mode_around_what_is_compiled_holds_for_its_block(mode):
    """It used to be ignored."""
    x, weight = torch.randn(4, 6, 9, 9), torch.randn(4, 6, 1, 5, 5)
    backend = Backend("eager")
    compiled = torch.compile(depthwise, fullgraph=True, backend=backend)
    compiled(x, weight)
    assert "nni_dynconv.convolution" in backend.code
    with mode():
        found = compiled(x, weight)
        torch.testing.assert_close(found, depthwise(x, weight), rtol=0, atol=0)
    assert "nni_dynconv" not in backend.code
    compiled(x, weight)
    assert backend.graphs == 2


@pytest.mark.slow
def test_inductor_runs_a_step():
    mutator, sample = make(Everything)
    network = mutator.freeze(sample)
    compiled = torch.compile(network, fullgraph=True)
    expected = step(lambda: network(image(), vector()), network)
    torch.testing.assert_close(step(lambda: compiled(image(), vector()), network), expected, rtol=1e-3, atol=1e-4)
