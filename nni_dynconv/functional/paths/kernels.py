"""The compiled kernels of ``csrc/``: found beside the package, loaded, called; without them torch's operators serve.

``NNI_DYNCONV_KERNELS=torch`` in the environment leaves them alone. A call releases the GIL and uses as many threads
as torch would.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..planning.geometry import Geometry, GeometryNd, Sizes

__all__ = ["backward", "forward", "lanes", "level", "loaded", "serves"]

LEVELS = ("baseline", "AVX2", "AVX-512")


def _load() -> ctypes.CDLL | None:
    if os.environ.get("NNI_DYNCONV_KERNELS") == "torch":
        return None
    for path in sorted(Path(__file__).resolve().parents[2].glob("_kernels*")):
        if path.suffix in (".so", ".dylib", ".pyd"):
            return load(path)
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """Load a library of kernels, or None if it was built for another machine."""
    try:
        library = ctypes.CDLL(str(path))
        for forward, backward in (
            (library.nni_dynconv_depthwise, library.nni_dynconv_depthwise_backward),
            (library.nni_dynconv_dense, library.nni_dynconv_dense_backward),
        ):
            forward.argtypes, forward.restype = [ctypes.c_void_p] * 4, None
            backward.argtypes, backward.restype = [ctypes.c_void_p] * 6, None
    except (OSError, AttributeError):
        return None
    return library


_library = _load()


def loaded() -> bool:
    """Whether the compiled kernels are there."""
    return _library is not None


def level(wanted: int = -1) -> int:
    """Return the instruction set in use, an index into ``LEVELS``; ``wanted`` picks another that the CPU has."""
    return _library.nni_dynconv_level(wanted) if _library is not None else 0


_lanes = 4 << level()


def lanes() -> int:
    """How many values the vectors of this CPU hold."""
    return _lanes


@lru_cache(maxsize=1024)
def _struct(geometry: Geometry | GeometryNd, threads: int) -> ctypes.Array[ctypes.c_int64]:
    # the fields of `struct Geometry` in csrc/geometry.h
    sizes = [*_three(geometry.size, 1), *_three(geometry.out, 1), *_three(geometry.kernel, 1)]
    options = [*_three(geometry.stride, 1), *_three(geometry.padding, 0), *_three(geometry.dilation, 1)]
    B, G, Cin, Cout = geometry.B, geometry.G, geometry.Cin, geometry.Cout
    # dense groups are samples of their own: their channels and weights lie one behind the other
    if _by_planes(geometry):
        return (ctypes.c_int64 * 24)(B, Cin, *sizes, *options, geometry.sets, 1, threads, 0)
    return (ctypes.c_int64 * 24)(B * G, Cin // G, *sizes, *options, geometry.sets * G, G, threads, Cout // G)


def _three(axes: Sizes, missing: int) -> Sizes:
    return (missing,) * (3 - len(axes)) + axes


def serves(geometry: Geometry | GeometryNd) -> bool:
    """Whether there is a kernel: for every convolution that computes anything; blocks of samples must be equal."""
    equal = geometry.counts is None or len(set(geometry.counts)) == 1
    return equal and min(geometry.B, geometry.Cin, geometry.Cout, *geometry.size, *geometry.out) > 0


def _by_planes(geometry: Geometry | GeometryNd) -> bool:
    return isinstance(geometry, Geometry) and geometry.depthwise


def forward(x: Tensor, weight: Tensor, geometry: Geometry | GeometryNd) -> Tensor:
    """Convolve contiguous float32 tensors.

    ``x: B Cin ...``, ``weight: [B] Cout Cin/G ...``, transposed ``Cin Cout/G`` -> ``B Cout ...``.
    """
    y = x.new_empty(geometry.output)
    if isinstance(geometry, GeometryNd) and geometry.transposed:
        _differentiate(None, weight, x, y, None, geometry.adjoint())
    else:
        _convolve(x, weight, y, geometry)
    return y


def backward(
    x: Tensor, weight: Tensor, dy: Tensor, dx: Tensor | None, dw: Tensor | None, geometry: Geometry | GeometryNd
) -> None:
    """Gradients of :func:`forward` into ``dx`` and ``dw``, each of which may be None: not wanted."""
    if isinstance(geometry, GeometryNd) and geometry.transposed:
        if dx is not None:
            _convolve(dy, weight, dx, geometry.adjoint())
        if dw is not None:
            _differentiate(dy, weight, x, None, dw, geometry.adjoint())
    else:
        _differentiate(x, weight, dy, dx, dw, geometry)


def _convolve(x: Tensor, weight: Tensor, y: Tensor, geometry: Geometry | GeometryNd) -> None:
    struct, library = _struct(geometry, torch.get_num_threads()), cast(ctypes.CDLL, _library)
    run = library.nni_dynconv_depthwise if _by_planes(geometry) else library.nni_dynconv_dense
    run(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr())


def _differentiate(
    x: Tensor | None,  # a dense convolution needs none for `dx` alone
    weight: Tensor,
    dy: Tensor,
    dx: Tensor | None,
    dw: Tensor | None,
    geometry: Geometry | GeometryNd,
) -> None:
    pointers = [None if one is None else one.data_ptr() for one in (x, weight, dy, dx, dw)]
    struct, library = _struct(geometry, torch.get_num_threads()), cast(ctypes.CDLL, _library)
    run = library.nni_dynconv_depthwise_backward if _by_planes(geometry) else library.nni_dynconv_dense_backward
    run(struct, *pointers)
