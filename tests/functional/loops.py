"""The truth of the functional tests: a Python loop over the samples with torch's own functions, and comparing to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def loop(function, x, weight, bias=None, *, axes, counts=None, **options):
    """Apply ``function`` to each sample; ``axes`` is the rank of one weight, ``counts`` the samples of each set."""
    samples = []
    for b in range(x.shape[0]):
        own_weight = one_of(weight, b, x.shape[0], counts) if weight.dim() > axes else weight
        own_bias = one_of(bias, b, x.shape[0], counts) if bias is not None and bias.dim() == 2 else bias
        samples.append(function(x[b : b + 1], own_weight, own_bias, **options))
    return torch.cat(samples)


def one_of(sets, b, batch, counts=None):
    """The set that serves sample ``b``."""
    if counts is None or len(counts) != len(sets):
        counts = [batch // len(sets)] * len(sets)
    return sets[[d for d, count in enumerate(counts) for _ in range(count)][b]]


def loop_conv1d(x, weight, bias=None, **options):
    return loop(F.conv1d, x, weight, bias, axes=3, **options)


def loop_conv2d(x, weight, bias=None, **options):
    return loop(F.conv2d, x, weight, bias, axes=4, **options)


def loop_conv3d(x, weight, bias=None, **options):
    return loop(F.conv3d, x, weight, bias, axes=5, **options)


def loop_conv_transpose1d(x, weight, bias=None, **options):
    return loop(F.conv_transpose1d, x, weight, bias, axes=3, **options)


def loop_conv_transpose2d(x, weight, bias=None, **options):
    return loop(F.conv_transpose2d, x, weight, bias, axes=4, **options)


def loop_conv_transpose3d(x, weight, bias=None, **options):
    return loop(F.conv_transpose3d, x, weight, bias, axes=5, **options)


def loop_linear(x, weight, bias=None, **options):
    return loop(F.linear, x, weight, bias, axes=2, **options)


def tensors(*shapes, seed=0, dtype=torch.float64):
    """Random tensors that want gradients; a shape of None stays None."""
    generator = torch.Generator().manual_seed(seed)
    made = [None if s is None else torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    return [one if one is None else one.requires_grad_() for one in made]


def assert_like_loop(function, reference, inputs, tolerance=None, **options):
    """Value and every gradient of ``function`` equal those of ``reference``."""
    leaves = [one for one in inputs if one is not None]
    ours, theirs = function(*inputs, **options), reference(*inputs, **options)
    if tolerance is None:
        tolerance = TOLERANCES[ours.dtype]
    close = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(ours, theirs, **close)
    pull = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(ours.dtype)
    for mine, right in zip(
        torch.autograd.grad(ours, leaves, pull), torch.autograd.grad(theirs, leaves, pull), strict=True
    ):
        scale = max(1.0, right.detach().abs().max().item()) if right.numel() else 1.0
        torch.testing.assert_close(mine / scale, right / scale, **close)


@st.composite
def problems(draw, kinds, channels=2, size=5, kernel=3, padding=2, own=False):
    """Any convolution of ``kinds``, (axes of space, transposed): its name, inputs and options.

    Channels are those of a group. With ``own`` weights are for blocks of one or more samples, or all, in float32,
    without a bias.
    """
    rank, transposed = draw(st.sampled_from(kinds))
    B, G, inner, outer = (draw(st.integers(1, top)) for top in (3, 2, channels, channels))
    sizes, kernels, stride, paddings, dilation = (
        draw(st.tuples(*[st.integers(low, top)] * rank))
        for low, top in ((1, size), (1, kernel), (1, 3), (0, padding), (1, 2))
    )
    options = {"stride": stride, "padding": paddings, "dilation": dilation, "groups": G}
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernels, strict=True)]
    if transposed:
        further = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        options["output_padding"] = further
        for n, s, p, span, e in zip(sizes, stride, paddings, spans, further, strict=True):
            assume((n - 1) * s - 2 * p + span + e >= 1)
        weight = (G * inner, outer, *kernels)
    else:
        assume(all(n + 2 * p >= span for n, p, span in zip(sizes, paddings, spans, strict=True)))
        weight = (G * outer, inner, *kernels)
    op = f"conv{'_transpose' if transposed else ''}{rank}d"
    if own:
        sets = draw(st.sampled_from([(), (B,)]))
        return (
            op,
            tensors((B * draw(st.integers(1, 2)), G * inner, *sizes), (*sets, *weight), dtype=torch.float32),
            options,
        )
    lead, added = (draw(st.sampled_from([(), (B,), (1,)])) for _ in range(2))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    return op, tensors((B, G * inner, *sizes), (*lead, *weight), (*added, G * outer), dtype=dtype), options
