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

from .geometry import Geometry

__all__ = ["backward", "forward", "level", "loaded", "serves", "wide"]

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


_wide = level() > 0


def wide() -> bool:
    """Whether this CPU has vectors of more than four values."""
    return _wide


@lru_cache(maxsize=1024)
def _struct(geometry: Geometry, threads: int) -> ctypes.Array[ctypes.c_int64]:
    # the fields of `struct Geometry` in csrc/geometry.h
    B, C, H, W, _, Kh, Kw, _, Ho, Wo = geometry[:10]
    options = (*geometry.stride, *geometry.padding, *geometry.dilation)
    outputs = 0 if geometry.depthwise else geometry.Cout
    return (ctypes.c_int64 * 17)(B, C, H, W, Ho, Wo, Kh, Kw, *options, not geometry.per_sample, threads, outputs)


def serves(geometry: Geometry) -> bool:
    """Whether there is a kernel: for any depthwise convolution, and dense ones of stride 1 with a weight per sample."""
    if min(geometry[:4]) < 1 or min(geometry.Ho, geometry.Wo) < 1:
        return False
    return geometry.depthwise or (geometry.per_sample and geometry.G == 1 and geometry.convolves_backward)


def forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:  # B Cin H W, [B] Cout Cin/G ... -> B Cout Ho Wo
    """Convolve contiguous float32 tensors."""
    y = x.new_empty((geometry.B, geometry.Cout, geometry.Ho, geometry.Wo))
    struct, library = _struct(geometry, torch.get_num_threads()), cast(ctypes.CDLL, _library)
    run = library.nni_dynconv_depthwise if geometry.depthwise else library.nni_dynconv_dense
    run(struct, x.data_ptr(), weight.data_ptr(), y.data_ptr())
    return y


def backward(x: Tensor, weight: Tensor, dy: Tensor, dx: Tensor | None, dw: Tensor | None, geometry: Geometry) -> None:
    """Gradients of :func:`forward` into ``dx`` and ``dw``, each of which may be None: not wanted."""
    pointers = [None if one is None else one.data_ptr() for one in (x, weight, dy, dx, dw)]
    struct, library = _struct(geometry, torch.get_num_threads()), cast(ctypes.CDLL, _library)
    run = library.nni_dynconv_depthwise_backward if geometry.depthwise else library.nni_dynconv_dense_backward
    run(struct, *pointers)
