"""``conv1d``, ``conv2d``, ``conv3d``: convolutions whose weights are shared, or made anew for samples or blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from .factored import call_factored
from .low_rank import LowRank
from .paths import depthwise, kernels, nd
from .paths import planar as paths
from .paths.compiled import compiled
from .planning.forms import FORMS, alternatives, decide
from .planning.geometry import Geometry, GeometryNd, Sizes, measure_nd, measure_transposed
from .planning.modes import is_deterministic, is_portable, is_transformed, wants_kernels
from .planning.planner import Setting
from .planning.tuning import fastest, is_tuning, state, trial

__all__ = ["conv1d", "conv2d", "conv3d"]

PLAIN = (Tensor, Parameter)  # what the compiled kernels read: no subclass
PATHS: dict[str, Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]] = {
    "plain": paths.plain,
    "single": paths.single,
    "grouped": paths.grouped,
    "looped": paths.looped,
    "matmul": paths.matmul,
    "unfold": paths.unfold,
    "folded": paths.folded,
    "depthwise": depthwise.depthwise,
    "depthwise_in_chunks": depthwise.depthwise_in_chunks,
    "compiled": compiled,
}


def conv2d(
    x: Tensor,  # B Cin H W
    weight: Tensor | LowRank,  # Cout Cin/G Kh Kw, or B Cout Cin/G Kh Kw, or D Cout Cin/G Kh Kw
    bias: Tensor | None = None,  # Cout, or B Cout, or D Cout
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Ho Wo
    r"""Convolve each sample with the shared weights, with its own, or with those of its block of samples.

    .. math:: y_b = x_b \star w_{d(b)} + c_{d(b)}, \qquad b = 1, \dots, B

    Values and gradients are those of a loop over the samples with :func:`torch.nn.functional.conv2d`, whatever
    path the planner takes. Memory grows with the number of sets of weights: none is repeated for its samples.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, H, W)
    weight : Tensor, shape (Cout, Cin/G, Kh, Kw), (B, Cout, Cin/G, Kh, Kw) or (D, Cout, Cin/G, Kh, Kw)
        Four axes: shared by all samples. Five: one set per sample, or one for each of D blocks of consecutive samples:
        of B/D samples, or of ``counts``. Or a :class:`LowRank`: the planner forms these, or applies the factors.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is.
    stride, padding, dilation, groups
        As in :func:`torch.nn.functional.conv2d`, ``"same"`` and ``"valid"`` among them.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B. Shared weights do not look at it.

    Returns
    -------
    Tensor, shape (B, Cout, Ho, Wo)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> x = torch.ones(2, 1, 3, 3)
    >>> weight = torch.stack([torch.ones(1, 1, 3, 3), 2 * torch.ones(1, 1, 3, 3)])
    >>> conv2d(x, weight).flatten().tolist()
    [9.0, 18.0]
    >>> conv2d(torch.ones(3, 1, 3, 3), weight, counts=[2, 1]).flatten().tolist()
    [9.0, 9.0, 18.0]
    """
    if isinstance(weight, LowRank):
        options = stride, padding, dilation, groups
        return call_factored(conv2d, 2, setting_of(x, weight), x, weight, bias, options, counts)
    geometry, path = find_plan(setting_of(x, weight), 2, x, weight, bias, stride, padding, dilation, groups, counts)
    return _run(x, weight, bias, geometry, path)


def conv1d(
    x: Tensor,  # B Cin L
    weight: Tensor | LowRank,  # Cout Cin/G K, or B Cout Cin/G K, or D Cout Cin/G K
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Lo
    """Convolve sequences as :func:`conv2d` does images, by the same paths: a sequence is an image of one row.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, L)
    weight : Tensor, shape (Cout, Cin/G, K), (B, Cout, Cin/G, K) or (D, Cout, Cin/G, K)
    bias, stride, padding, dilation, groups, counts
        As in :func:`conv2d`.

    Returns
    -------
    Tensor, shape (B, Cout, Lo)

    Raises
    ------
    ShapeError
        As in :func:`conv2d`.

    Examples
    --------
    >>> conv1d(torch.ones(2, 1, 3), torch.tensor([[[[1.0, 1.0]]], [[[2.0, 2.0]]]])).tolist()
    [[[2.0, 2.0]], [[4.0, 4.0]]]
    """
    if isinstance(weight, LowRank):
        options = stride, padding, dilation, groups
        return call_factored(conv1d, 1, setting_of(x, weight), x, weight, bias, options, counts)
    geometry, path = find_plan(setting_of(x, weight), 1, x, weight, bias, stride, padding, dilation, groups, counts)
    return _run(x.unsqueeze(2), weight.unsqueeze(-2), bias, geometry, path).squeeze(2)


def conv3d(
    x: Tensor,  # B Cin T H W
    weight: Tensor | LowRank,  # Cout Cin/G Kt Kh Kw, or B Cout Cin/G Kt Kh Kw, or D Cout Cin/G Kt Kh Kw
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout To Ho Wo
    """Convolve volumes, or videos, as :func:`conv2d` does images.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, T, H, W)
    weight : Tensor, shape (Cout, Cin/G, Kt, Kh, Kw), (B, Cout, Cin/G, Kt, Kh, Kw) or (D, Cout, Cin/G, Kt, Kh, Kw)
    bias, stride, padding, dilation, groups, counts
        As in :func:`conv2d`.

    Returns
    -------
    Tensor, shape (B, Cout, To, Ho, Wo)

    Raises
    ------
    ShapeError
        As in :func:`conv2d`.

    Examples
    --------
    >>> weight = torch.stack([torch.ones(1, 1, 2, 2, 2), 2 * torch.ones(1, 1, 2, 2, 2)])
    >>> conv3d(torch.ones(2, 1, 2, 2, 2), weight).flatten().tolist()
    [8.0, 16.0]
    """
    if isinstance(weight, LowRank):
        options = stride, padding, dilation, groups
        return call_factored(conv3d, 3, setting_of(x, weight), x, weight, bias, options, counts)
    geometry, path = find_plan(setting_of(x, weight), 3, x, weight, bias, stride, padding, dilation, groups, counts)
    return run_nd(x, weight, bias, geometry, path)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, path: str) -> Tensor:
    if geometry.extra != (0, 0):
        rows, columns = geometry.extra
        x, geometry = F.pad(x, (0, columns, 0, rows)), geometry.padded()
    if path in PATHS:
        return PATHS[path](x, weight, bias, geometry)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return conv2d(x, weight, bias, *options, groups, counts=geometry.counts if path == "bias_apart" else None)

    options = geometry.stride, geometry.padding, geometry.dilation
    return FORMS[path](convolve, x, weight, bias, geometry.bias_counts or geometry.counts or (), geometry.G)


def run_nd(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: GeometryNd, path: str) -> Tensor:
    """Compute what has been planned, over any number of axes."""
    if any(geometry.extra) and not geometry.transposed:
        x = F.pad(x, [size for extra in reversed(geometry.extra) for size in (0, extra)])
        geometry = geometry.padded()
    if path in nd.PATHS:
        return nd.PATHS[path](x, weight, bias, geometry)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        counts, rank = (geometry.counts if path == "bias_apart" else None), len(geometry.size)
        stride, padding, dilation = geometry.stride, geometry.padding, geometry.dilation
        options: tuple[Any, ...] = (stride, padding, dilation, groups)
        if geometry.transposed:
            rank, options = -rank, (stride, padding, geometry.extra, groups, dilation)
        return run_nd(x, weight, bias, *find_plan(setting_of(x, weight), rank, x, weight, bias, *options, counts))

    return FORMS[path](convolve, x, weight, bias, geometry.bias_counts or geometry.counts or (), geometry.G)


def setting_of(x: Tensor, weight: Tensor | LowRank) -> Setting:
    """Return what, beside the shapes, decides on the path; every call pays for it: the cheap questions come first."""
    on_cpu, dtype = x.is_cpu, x.dtype
    training = (x.requires_grad or weight.requires_grad) and torch.is_grad_enabled()
    transformed = is_transformed()
    suits = (
        on_cpu
        and dtype is torch.float32
        and not transformed
        and type(x) in PLAIN
        and type(weight) in PLAIN  # no LowRank
        and weight.dtype is torch.float32  # type: ignore[union-attr]
        and weight.is_cpu  # type: ignore[union-attr]
        and kernels.loaded()
        and wants_kernels()
        and not torch.is_autocast_enabled("cpu")
    )
    device = "cpu" if on_cpu else x.device.type
    modes = is_portable(), transformed, is_deterministic()
    channels_last = not x.is_contiguous() and _is_channels_last(x)
    threaded = not torch.compiler.is_compiling() and torch.get_num_threads() > 1  # which no graph can ask
    return Setting(device, dtype, training, suits, *modes, channels_last, threaded)


def _is_channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


def find_plan(
    setting: Setting, rank: int, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
) -> tuple[Any, str]:
    """Return geometry and path of a convolution over ``rank`` axes; of a transposed one over ``-rank``."""
    shapes = (x.shape, weight.shape, None if bias is None else bias.shape)
    if torch.compiler.is_compiling():
        return _plan_anew(setting, rank, *shapes, *options)
    if is_tuning():
        return _plan_measured(setting, rank, (x, weight, bias), *shapes, *options)
    try:
        return _plan_once(state(), setting, rank, *shapes, *options)
    except TypeError:  # a list among the options, or a symbolic size: nothing to remember it by
        return _plan_anew(setting, rank, *shapes, *options)


def measure_planned(rank: int, *problem: Any) -> tuple[GeometryNd, Geometry | GeometryNd]:
    """Return the geometry of a call, and that of what computes it: an image of one row for a sequence."""
    geometry = measure_transposed(-rank, *problem) if rank < 0 else measure_nd(rank, *problem)
    return geometry, geometry.planar() if rank in (1, 2) else geometry


def _plan_anew(setting: Setting, rank: int, *problem: Any) -> tuple[Any, str]:
    geometry = measure_planned(rank, *problem)[1]
    return geometry, decide(geometry, setting).path


@lru_cache(maxsize=4096)
def _plan_once(measured: tuple[int, int] | None, *problem: Any) -> tuple[Any, str]:
    return _plan_anew(*problem)


def _plan_measured(
    setting: Setting, rank: int, inputs: tuple[Tensor, Tensor, Tensor | None], *problem: Any
) -> tuple[Any, str]:
    geometry = measure_planned(rank, *problem)[1]
    names = alternatives(geometry, setting)
    if len(names) > 1:
        x, weight, bias = inputs
        if rank == 1:
            x, weight = x.unsqueeze(2), weight.unsqueeze(-2)
        convolve: Callable[..., Tensor] = _run if isinstance(geometry, Geometry) else run_nd

        def run(path: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return convolve(x, weight, bias, geometry, path)

        trials = {name: trial(run, name, x, weight, bias) for name in names}
        names = [fastest((geometry, setting), trials, x.device)]
    return geometry, names[0]
