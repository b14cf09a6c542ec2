"""Calls of the compiled kernels, on contiguous float32 tensors.

A call releases the GIL and uses as many threads as torch would.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import OutOfMemoryError
from ..library import opened
from ..planning.geometry import Geometry, Sizes

__all__ = ["PIXELS", "backward", "forward", "pixels"]

GROUPS = 21  # the field of `struct Geometry`
PIXELS = ("map", "spread", "correlate")  # as `nni_dynconv_pixels` counts them


@lru_cache(maxsize=1024)
def _called(geometry: Geometry, threads: int) -> tuple[Any, Any, ctypes.Array[ctypes.c_int64]]:
    """Return the kernels, forward and backward, and what they are told."""
    library = opened()
    kind = "depthwise" if geometry.depthwise else "dense"
    names = f"nni_dynconv_{kind}", f"nni_dynconv_{kind}_backward"
    return getattr(library, names[0]), getattr(library, names[1]), _struct(geometry, threads)


def _struct(geometry: Geometry, threads: int) -> ctypes.Array[ctypes.c_int64]:
    # the fields of `struct Geometry` in csrc/geometry.h
    sizes = [*_three(geometry.size, 1), *_three(geometry.out, 1), *_three(geometry.kernel, 1)]
    options = [*_three(geometry.stride, 1), *_three(geometry.padding, 0), *_three(geometry.dilation, 1)]
    B, G, Cin, Cout = geometry.B, geometry.G, geometry.Cin, geometry.Cout
    # dense groups are samples of their own: their channels and weights lie one behind the other
    if geometry.depthwise:
        return (ctypes.c_int64 * 24)(B, Cin, *sizes, *options, geometry.sets, 1, threads, 0)
    return (ctypes.c_int64 * 24)(B * G, Cin // G, *sizes, *options, geometry.sets * G, G, threads, Cout // G)


def _three(axes: Sizes, missing: int) -> Sizes:
    return (missing,) * (3 - len(axes)) + axes


def forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Convolve.

    ``x: B Cin ...``, ``weight: [B] Cout Cin/G ...``, transposed ``Cin Cout/G`` -> ``B Cout ...``.
    """
    y = x.new_empty(geometry.output)
    if geometry.transposed:
        _differentiate(None, weight, x, y, None, geometry.adjoint())
    else:
        _convolve(x, weight, y, geometry)
    return y


def backward(x: Tensor, weight: Tensor, dy: Tensor, dx: Tensor | None, dw: Tensor | None, geometry: Geometry) -> None:
    """Gradients of :func:`forward` into ``dx`` and ``dw``, each of which may be None: not wanted."""
    if geometry.transposed:
        if dx is not None:
            _convolve(dy, weight, dx, geometry.adjoint())
        if dw is not None:
            _differentiate(dy, weight, x, None, dw, geometry.adjoint())
    else:
        _differentiate(x, weight, dy, dx, dw, geometry)


def pixels(which: str, one: Tensor, other: Tensor, shape: Sizes, geometry: Geometry, groups: int) -> Tensor:
    """One of the maps of ``pixels.py``, to a tensor of a shape."""
    to = one.new_empty(shape)
    struct = _pixel_struct(geometry, groups, torch.get_num_threads())
    pointers = one.data_ptr(), other.data_ptr(), to.data_ptr()
    _check(opened().nni_dynconv_pixels(struct, PIXELS.index(which), *pointers), geometry)
    return to


@lru_cache(maxsize=1024)
def _pixel_struct(geometry: Geometry, groups: int, threads: int) -> ctypes.Array[ctypes.c_int64]:
    struct = _struct(geometry, threads)
    struct[GROUPS] = groups
    return struct


def _convolve(x: Tensor, weight: Tensor, y: Tensor, geometry: Geometry) -> None:
    run, _, struct = _called(geometry, torch.get_num_threads())
    _check(run(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr()), geometry)


def _differentiate(
    x: Tensor | None,  # a dense convolution needs none for `dx` alone
    weight: Tensor,
    dy: Tensor,
    dx: Tensor | None,
    dw: Tensor | None,
    geometry: Geometry,
) -> None:
    pointers = [None if one is None else one.data_ptr() for one in (x, weight, dy, dx, dw)]
    _, run, struct = _called(geometry, torch.get_num_threads())
    _check(run(struct, *pointers), geometry)


def _check(status: int, geometry: Geometry) -> None:
    if status:
        raise OutOfMemoryError(
            f"A kernel ran out of memory at {geometry.B} samples of {geometry.Cin} channels, {geometry.size}. "
            f"Take fewer samples at a time, or torch's own operators by `functional.without_kernels()`."
        )
