"""``explain``: which path a convolution or linear map would take, and why, without running it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import ConfigError, ShapeError, did_you_mean
from . import conv, transposed
from .composed import Parts
from .library import loaded
from .linear import linear
from .planning.composed import APPLIED
from .planning.geometry import Geometry
from .planning.measuring import measure
from .planning.modes import Setting, is_portable, modes
from .planning.problem import Choice, Problem
from .planning.rules import choose

__all__ = ["chosen", "explain"]

OPS: dict[str, tuple[int, Callable[..., Any]]] = {  # with its axes of space
    "linear": (0, linear),
    "conv1d": (1, conv.conv1d),
    "conv2d": (2, conv.conv2d),
    "conv3d": (3, conv.conv3d),
    "conv_transpose1d": (-1, transposed.conv_transpose1d),
    "conv_transpose2d": (-2, transposed.conv_transpose2d),
    "conv_transpose3d": (-3, transposed.conv_transpose3d),
}


def explain(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *options: Any,
    op: str = "conv2d",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    training: bool = True,
    rank: int | None = None,
    base: bool = False,
    **named: Any,
) -> None:
    """Print the path that a convolution or linear map takes for these shapes, and the reason.

    Parameters
    ----------
    x_shape, weight_shape : sequence of int
        As the op takes them: ``B Cin H W`` and ``Cout Cin/G Kh Kw``, or ``B ... Cin`` and ``Cout Cin``; weights with a
        leading ``B`` or ``D`` for several sets.
    *options, **named
        The op's own, behind the bias, in its order or by name: for ``conv2d`` stride, padding, dilation, groups.
    op : str
        A convolution of :mod:`nni_dynconv.functional`, such as ``conv3d`` or ``conv_transpose2d``, or ``linear``.
    dtype, device
        Of the tensors.
    training : bool
        Whether gradients are wanted.
    rank : int, optional
        Of a weight that is given by factors: :class:`~nni_dynconv.functional.LowRank`.
    base : bool
        Whether that has a base.

    Raises
    ------
    ConfigError
        There is no such op.
    ShapeError
        The op would refuse these shapes.

    Examples
    --------
    >>> explain((8, 16, 32, 32), (8, 4, 16, 1, 1))
    conv2d, x: 8 16 32 32, weight: 8 4 16 1 1 (one set per sample), float32 on cpu, with gradients
      path `matmul`: a 1x1 kernel only mixes channels
      output: 8 4 32 32; 524,288 multiply-adds
    """
    settings: dict[str, Any] = {"op": op, "dtype": dtype, "device": device, "training": training}
    factored: dict[str, Any] = {"rank": rank, "base": base}
    geometry, (path, why) = chosen(x_shape, weight_shape, *options, **settings, **factored, **named)
    multiply_adds = geometry.multiply_adds
    print(
        f"{op}, x: {_words(x_shape)}, weight: {_words(weight_shape)} ({_sets(geometry, weight_shape)}), "
        f"{str(dtype).removeprefix('torch.')} on {device}, {'with gradients' if training else 'forward only'}"
    )
    if rank is not None and path == APPLIED:
        multiply_adds = _applied(geometry, rank, base)
    elif rank is not None:
        print(f"  the weight is formed, {rank * geometry.sets * geometry.values:,} multiply-adds: {why}")
        geometry, (path, why) = chosen(x_shape, weight_shape, *options, **settings, **named)
    print(f"  path `{path}`: {why}")
    print(f"  output: {_words(geometry.output)}; {multiply_adds:,} multiply-adds")


def chosen(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *options: Any,
    op: str = "conv2d",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    training: bool = True,
    rank: int | None = None,
    base: bool = False,
    **named: Any,
) -> tuple[Geometry, Choice]:
    """What :func:`explain` prints, as data; of factors, whether they are applied."""
    if not isinstance(op, str) or op not in OPS:
        raise ConfigError(f"`explain` knows no op `{op}`.{did_you_mean(op, OPS)}")
    for name, shape in (("x", x_shape), ("weight", weight_shape)):
        if not isinstance(shape, Sequence) or isinstance(shape, (str, bytes)):
            raise ShapeError(f"`explain`: the shape of `{name}` is {shape!r}, but must be a tuple of sizes.")
    axes, function = OPS[op]
    given = inspect.signature(function).bind(tuple(x_shape), tuple(weight_shape), None, *options, **named)
    given.apply_defaults()
    kind, plain = torch.device(device).type, dtype == torch.float32 and rank is None
    suits = plain and kind == "cpu" and loaded() and modes.kernels and not modes.deterministic
    own = {"deterministic": modes.deterministic, "threaded": torch.get_num_threads() > 1}
    parts = None if rank is None else Parts("LowRank", rank, base)
    setting = Setting(kind, dtype, training, suits, is_portable(), **own, parts=parts)
    geometry = measure(axes, *given.arguments.values())
    return geometry, choose(Problem(geometry.as_image() if axes == 1 else geometry, setting))


def _applied(geometry: Geometry, rank: int, base: bool) -> int:
    """Return the multiplications of applying factors: by B, by A, and with the base."""
    thin = geometry._replace(Cout=rank).multiply_adds
    return thin + rank * math.prod(geometry.output) + base * geometry.multiply_adds


def _words(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))


def _sets(geometry: Geometry, weight: Sequence[int]) -> str:
    if not geometry.per_sample:
        return "shared"
    return "one set per sample" if geometry.counts is None else f"{weight[0]} sets for blocks of samples"
