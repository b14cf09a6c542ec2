"""The compiled kernels against the loop: every shape, stride, dilation, instruction set; threads; torch.compile."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from functional import loops
from functional.loops import assert_like_loop, loop_conv2d, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from often import by_default
from torch.utils.flop_counter import FlopCounterMode

import nni_dynconv.functional
from nni_dynconv.functional import conv2d, library, without_kernels
from nni_dynconv.functional.explain import OPS
from nni_dynconv.functional.paths import kernels
from nni_dynconv.functional.paths.compiled import Compiled, compiled
from nni_dynconv.functional.paths.operators import convolution_operator
from nni_dynconv.functional.planning.compiled import serves
from nni_dynconv.functional.planning.measuring import measure

built = pytest.mark.skipif(not library.loaded(), reason="the compiled kernels are not built, or turned off")
SOURCES = Path(nni_dynconv.functional.__file__).parent.parent / "csrc"


def make(B, C, H, W, K, shared=False, **more):
    weight = (C, 1, K, K) if shared else (B, C, 1, K, K)
    return tensors((B, C, H, W), weight, dtype=torch.float32, **more)


@pytest.fixture(params=range(3), ids=library.LEVELS)
def instructions(request):
    before = library.level()
    if library.level(request.param) != request.param:
        library.level(before)
        pytest.skip(f"this CPU has no {library.LEVELS[request.param]}")
    yield
    library.level(before)


@built
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 2)])
@pytest.mark.usefixtures("instructions")
def test_every_kernel_stride_and_dilation(K, stride, dilation, shared):
    padding = dilation * (K - 1) // 2
    inputs = make(2, 9, 17, 13, K, shared)
    assert_like_loop(conv2d, loop_conv2d, inputs, stride=stride, padding=padding, dilation=dilation, groups=9)


@built
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_depthwise_problem_equals_the_loop(data):
    pair = lambda least, most: data.draw(st.tuples(*[st.integers(least, most)] * 2))  # noqa: E731
    (Kh, Kw), stride, dilation, padding = pair(1, 6), pair(1, 3), pair(1, 3), pair(0, 7)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, (Kh, Kw), strict=True)]
    H, W = [max(1, span - 2 * p) + more for span, p, more in zip(spans, padding, pair(0, 20), strict=True)]
    B, C = data.draw(st.sampled_from([(1, 1), (1, 8), (2, 3), (3, 16), (5, 4)]))
    weight = (B, C, 1, Kh, Kw)[data.draw(st.integers(0, 1)) :]
    inputs = tensors((B, C, H, W), weight, dtype=torch.float32)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": C}
    assert_like_loop(conv2d, loop_conv2d, inputs, **options)


@built
@given(st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.usefixtures("instructions")
def test_any_problem_that_goes_row_by_row_equals_the_loop(data):
    pair = lambda least, most: data.draw(st.tuples(*[st.integers(least, most)] * 2))  # noqa: E731
    K, dilation, (H, W) = data.draw(st.sampled_from([3, 5, 7])), pair(1, 3), pair(4, 40)
    spans = [d * (K - 1) for d in dilation]
    padding = tuple(data.draw(st.integers(0, span)) for span in spans)
    H, W = [max(size, 4 + span - 2 * p) for size, span, p in zip((H, W), spans, padding, strict=True)]
    B, C = data.draw(st.sampled_from([(1, 1), (2, 3), (3, 2)]))
    weight = (B, C, 1, K, K)[data.draw(st.integers(0, 1)) :]
    inputs = tensors((B, C, H, W), weight, dtype=torch.float32)
    assert_like_loop(conv2d, loop_conv2d, inputs, padding=padding, dilation=dilation, groups=C)


PLANES = {"channels": 19, "size": 36, "kernel": 5, "padding": 5}
LINES = {"channels": 9, "size": 40, "kernel": 5, "padding": 9}
VOLUMES = {"channels": 9, "size": 9, "kernel": 3, "padding": 5}
DENSE = [([(2, False), (2, True)], PLANES), ([(1, False), (1, True)], LINES), ([(3, False), (3, True)], VOLUMES)]


@built
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize(("kinds", "limits"), DENSE, ids=["planes", "lines", "volumes"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_dense_problem_equals_the_loop(kinds, limits, data):
    op, inputs, options = data.draw(loops.problems(kinds, own=True, **limits))
    assert_like_loop(by_kernel(op), getattr(loops, f"loop_{op}"), inputs, **options)


def by_kernel(op):
    """The compiled path of any convolution, whatever the planner would choose."""

    def run(x, weight, **options):
        axes, function = OPS[op]
        given = inspect.signature(function).bind(x.shape, weight.shape, None, **options)
        given.apply_defaults()
        geometry = measure(axes, *given.arguments.values())  # sequences as they are
        assert serves(geometry)
        return compiled(x, weight, None, geometry)

    return run


@built
@pytest.mark.parametrize("W", [3, 8, 16, 23, 48])
@pytest.mark.usefixtures("instructions")
def test_rows_of_any_length_equal_the_loop(W):
    """Whole vectors go row by row, all others one behind the other."""
    assert_like_loop(conv2d, loop_conv2d, tensors((2, 7, 50, W), (2, 13, 7, 3, 3), dtype=torch.float32), padding=1)


@built
def test_it_is_really_the_kernel_that_runs():
    for C, groups in ((1, 4), (4, 1)):
        inputs = tensors((2, 4, 8, 8), (2, 4, C, 3, 3), dtype=torch.float32)
        assert conv2d(*inputs, padding=1, groups=groups).grad_fn.name() == f"{Compiled.__name__}Backward"
        with without_kernels():
            assert "Compiled" not in conv2d(*inputs, padding=1, groups=groups).grad_fn.name()


@built
@pytest.mark.parametrize("groups", [4, 1])
@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone_is_the_same(wanted, groups):
    inputs = tensors((2, 4, 9, 9), (2, 4, 4 // groups, 5, 5), dtype=torch.float32)
    pull = torch.randn(2, 4, 9, 9)
    both = torch.autograd.grad(conv2d(*inputs, padding=2, groups=groups), inputs, pull)
    inputs[1 - wanted].requires_grad_(False)
    (alone,) = torch.autograd.grad(conv2d(*inputs, padding=2, groups=groups), [inputs[wanted]], pull)
    torch.testing.assert_close(alone, both[wanted], atol=0, rtol=0)


SECOND = {  # op, x, weight, options
    "depthwise": ("conv2d", (2, 4, 6, 6), (2, 4, 1, 3, 3), {"groups": 4}),
    "shared": ("conv2d", (2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4}),
    "dense": ("conv2d", (2, 4, 6, 6), (2, 4, 4, 3, 3), {}),
    "strided, in groups": ("conv2d", (2, 4, 7, 6), (2, 4, 2, 3, 3), {"groups": 2, "stride": 2}),
    "transposed": ("conv_transpose2d", (2, 4, 5, 6), (2, 4, 3, 3, 3), {"stride": 2, "output_padding": 1}),
    "blocks": ("conv2d", (4, 4, 6, 5), (2, 3, 4, 3, 3), {}),
    "depthwise blocks": ("conv2d", (4, 4, 6, 5), (2, 4, 1, 3, 3), {"groups": 4}),
    "volumes": ("conv3d", (2, 2, 3, 4, 5), (2, 3, 2, 3, 3, 3), {"stride": (1, 2, 1)}),
}


@built
@pytest.mark.parametrize(("op", "x", "weight", "options"), SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("wanted", [(0, 1), (0,), (1,)], ids=["both", "x", "weight"])
def test_second_gradients_are_those_of_torch(op, x, weight, options, wanted):
    def second(function):
        inputs = tensors(x, weight, dtype=torch.float32)
        for i, one in enumerate(inputs):
            one.requires_grad_(i in wanted)
        leaves = [inputs[i] for i in wanted]
        first = torch.autograd.grad(function(*inputs, padding=1, **options).square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), leaves)

    ours = second(by_kernel(op))
    with without_kernels():
        theirs = second(getattr(nni_dynconv.functional, op))
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine / right.abs().max(), right / right.abs().max(), atol=1e-5, rtol=1e-4)


@built
@pytest.mark.parametrize(
    ("weight", "groups"), [((8, 16, 1, 5, 5), 16), ((16, 1, 5, 5), 16), ((8, 9, 16, 3, 3), 1)],
    ids=["depthwise", "shared", "dense"],
)  # fmt: skip
def test_threads_give_the_same_bits(weight, groups):
    inputs = tensors((8, 16, 40, 40), weight, dtype=torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = conv2d(*inputs, padding=2, groups=groups)
            results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)


@built
def test_calls_from_many_threads_do_not_meet():
    x, weight = [one.detach() for one in make(8, 16, 40, 40, 5)]
    expected = conv2d(x, weight, padding=2, groups=16)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: conv2d(x, weight, padding=2, groups=16), range(16)):
            torch.testing.assert_close(y, expected, atol=0, rtol=0)


def _convolve_on_two_threads(queue):
    # torch's own threads do not survive a fork: torch runs on one, the kernel on two
    x, weight = [one.detach() for one in make(8, 16, 40, 40, 5)]
    y = torch.zeros(8, 16, 40, 40)
    struct = kernels._struct(measure(2, x.shape, weight.shape, None, 1, 2, 1, 16), 2)
    library._library.nni_dynconv_depthwise(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr())
    queue.put(y[0, 0].tolist())


@built
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.timeout(60)
def test_a_forked_child_has_threads_of_its_own():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    _convolve_on_two_threads(queue)  # the parent's pool has started
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        child = context.Process(target=_convolve_on_two_threads, args=(queue,))
        child.start()
        assert queue.get(timeout=30) == queue.get(timeout=30)
        child.join(30)
    finally:
        torch.set_num_threads(before)
        child.kill()


CHILD = """
import os, torch
from nni_dynconv.functional import library
from nni_dynconv.functional.paths import kernels
from nni_dynconv.functional.planning.measuring import measure

torch.set_num_threads(2)
x, weight, y = torch.randn(8, 16, 40, 40), torch.randn(8, 16, 1, 5, 5), torch.zeros(8, 16, 40, 40)
struct = kernels._struct(measure(2, x.shape, weight.shape, None, 1, 2, 1, 16), 2)
torch.ones(1 << 22).exp_()  # torch's threads have started; the kernels have not run yet
child = os.fork()
if not child:
    library._library.nni_dynconv_depthwise(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr())
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.whole
@built
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_child_does_not_wait_for_threads_that_torch_had_in_its_parent():
    found = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "0"


@built
@pytest.mark.parametrize("shared", [False, True])
def test_torch_compile_keeps_the_kernel_in_one_graph(shared):
    graphs = []

    def backend(graph, _):
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(conv2d, backend=backend, fullgraph=True)
    assert_like_loop(compiled, loop_conv2d, make(3, 4, 6, 6, 5, shared), padding=2, groups=4)
    assert ["nni_dynconv.convolution" in graph for graph in graphs] == [True]


@built
def test_torchs_counter_sees_what_the_kernels_compute():
    x, weight = tensors((4, 8, 9, 9), (2, 8, 4, 3, 3), dtype=torch.float32)
    with FlopCounterMode(display=False) as forward:
        y = conv2d(x, weight, padding=1, groups=2)
    with FlopCounterMode(display=False) as both:
        torch.autograd.grad(y.sum(), [x, weight])
    with without_kernels(), FlopCounterMode(display=False) as torchs:
        conv2d(x, weight, padding=1, groups=2)
    assert forward.get_total_flops() == torchs.get_total_flops() > 0
    assert both.get_total_flops() == 2 * forward.get_total_flops()


@built
@pytest.mark.whole
def test_the_operator_passes_torchs_own_check():
    x, weight = make(3, 4, 9, 9, 3)
    none, dense = (False, [0, 0]), weight.mT.repeat(1, 1, 4, 1, 1)
    torch.library.opcheck(convolution_operator, (x, weight, [2, 1], [1, 1], [1, 2], *none, 4))
    torch.library.opcheck(convolution_operator, (x, weight[0].detach(), [1, 1], [1, 1], [1, 1], *none, 4))
    torch.library.opcheck(convolution_operator, (x, dense, [2, 1], [1, 1], [1, 1], *none, 1))
    torch.library.opcheck(convolution_operator, (x, dense, [2, 2], [1, 1], [1, 1], True, [1, 0], 1))
    volumes = tensors((2, 2, 3, 4, 5), (2, 3, 2, 2, 2, 2), dtype=torch.float32)
    torch.library.opcheck(convolution_operator, (*volumes, [1, 1, 2], [1, 0, 1], [1, 1, 1], False, [0, 0, 0], 1))


@pytest.mark.whole
def test_the_environment_turns_the_kernels_off():
    code = "from nni_dynconv.functional import library; print(library.loaded())"
    environment = os.environ | {"NNI_DYNCONV_KERNELS": "torch"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_library_that_is_none_is_left_alone(tmp_path):
    other = tmp_path / "_kernels.so"
    other.write_text("not a library")
    assert library.load(other) is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_the_sources_build_and_load(tmp_path):
    target = tmp_path / "_kernels.so"
    sources = [str(one) for one in SOURCES.glob("*.cpp")]
    command = ["g++", "-O1", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]
    subprocess.run([*command, *sources, "-o", str(target)], check=True, timeout=500)
    assert library.load(target) is not None


LITTLE_MEMORY = """
import resource, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from nni_dynconv import functional
small = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 3, 3)
functional.conv2d(*small)
x, weight = torch.zeros(4, 2, 3000, 3000), torch.randn(4, 2, 2, 3, 3)
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (8 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    functional.conv2d(x, weight, stride=50, padding=1)
except RuntimeError as error:
    print(type(error).__name__, error)
print(functional.conv2d(*small).shape)
"""


@pytest.mark.whole
@pytest.mark.skipif(sys.platform != "linux", reason="limits are set by Linux")
@pytest.mark.parametrize("threads", by_default("2", of=["1", "2"]))
def test_memory_that_runs_out_in_a_kernel_is_an_error_and_not_the_end(threads):
    """It used to abort the process."""
    command = [sys.executable, "-c", LITTLE_MEMORY, threads]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert first.startswith("OutOfMemoryError A kernel ran out of memory at 4 samples of 2 channels")
    assert second == "torch.Size([2, 8, 6, 6])"


def test_a_library_of_another_version_is_left_alone(tmp_path):
    """Its functions tell no status."""
    source = tmp_path / "old.c"
    source.write_text("int nni_dynconv_interface() { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "old.so"), str(source)], check=True)
    assert library.load(tmp_path / "old.so") is None
