"""The compiled kernels of ``csrc/``: found beside the package, loaded, called; without them torch's operators serve.

``NNI_DYNCONV_KERNELS=torch`` in the environment leaves them alone. A call releases the GIL and uses as many threads
as torch would.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .geometry import Geometry

__all__ = ["backward", "forward", "level", "loaded"]

LEVELS = ("baseline", "AVX2", "AVX-512")


def _load() -> ctypes.CDLL | None:
    if os.environ.get("NNI_DYNCONV_KERNELS") == "torch":
        return None
    for path in sorted(Path(__file__).resolve().parent.parent.glob("_kernels*")):
        if path.suffix in (".so", ".dylib", ".pyd"):
            return load(path)
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """Load a library of kernels, or None if it was built for another machine."""
    try:
        library = ctypes.CDLL(str(path))
        library.nni_dynconv_depthwise.argtypes = [ctypes.c_void_p] * 4
        library.nni_dynconv_depthwise.restype = None
        library.nni_dynconv_depthwise_backward.argtypes = [ctypes.c_void_p] * 6
        library.nni_dynconv_depthwise_backward.restype = None
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


@lru_cache(maxsize=1024)
def _struct(geometry: Geometry, threads: int) -> ctypes.Array[ctypes.c_int64]:
    # the fields of `struct Geometry` in csrc/geometry.h
    B, C, H, W, _, Kh, Kw, _, Ho, Wo = geometry[:10]
    options = (*geometry.stride, *geometry.padding, *geometry.dilation)
    return (ctypes.c_int64 * 16)(B, C, H, W, Ho, Wo, Kh, Kw, *options, not geometry.per_sample, threads)


def forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:  # B C H W, [B] C 1 Kh Kw -> B C Ho Wo
    """Depthwise convolution of contiguous float32 tensors."""
    y = x.new_empty((geometry.B, geometry.Cout, geometry.Ho, geometry.Wo))
    struct = _struct(geometry, torch.get_num_threads())
    _library.nni_dynconv_depthwise(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr())  # type: ignore[union-attr]
    return y


def backward(x: Tensor, weight: Tensor, dy: Tensor, dx: Tensor | None, dw: Tensor | None, geometry: Geometry) -> None:
    """Gradients of :func:`forward` into ``dx`` and ``dw``, each of which may be None: not wanted."""
    pointers = [None if one is None else one.data_ptr() for one in (x, weight, dy, dx, dw)]
    struct = _struct(geometry, torch.get_num_threads())
    _library.nni_dynconv_depthwise_backward(struct, *pointers)  # type: ignore[union-attr]
