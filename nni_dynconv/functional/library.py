"""The compiled kernels of ``csrc/``: found beside the package and loaded; without them torch's operators serve.

``NNI_DYNCONV_KERNELS=torch`` in the environment leaves them alone.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import cast

__all__ = ["LEVELS", "lanes", "level", "loaded", "opened"]

LEVELS = ("baseline", "AVX2", "AVX-512")
INTERFACE = 3  # of csrc/kernels.cpp


def _load() -> ctypes.CDLL | None:
    if os.environ.get("NNI_DYNCONV_KERNELS") == "torch":
        return None
    for path in sorted(Path(__file__).resolve().parents[1].glob("_kernels*")):
        if path.suffix in (".so", ".dylib", ".pyd"):
            return load(path)
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """Load a library of kernels, or None if it was built for another machine or by another version."""
    try:
        library = ctypes.CDLL(str(path))
        if library.nni_dynconv_interface() != INTERFACE:
            return None
        for forward, backward in (
            (library.nni_dynconv_depthwise, library.nni_dynconv_depthwise_backward),
            (library.nni_dynconv_dense, library.nni_dynconv_dense_backward),
        ):
            forward.argtypes, forward.restype = [ctypes.c_void_p] * 4, ctypes.c_int
            backward.argtypes, backward.restype = [ctypes.c_void_p] * 6, ctypes.c_int
        pixels = library.nni_dynconv_pixels
        pixels.argtypes, pixels.restype = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 3], ctypes.c_int
    except (OSError, AttributeError):
        return None
    return library


_library = _load()


def loaded() -> bool:
    """Whether the compiled kernels are there."""
    return _library is not None


def opened() -> ctypes.CDLL:
    """Return the library, for whoever knows that it is there."""
    return cast(ctypes.CDLL, _library)


def level(wanted: int = -1) -> int:
    """Return the instruction set in use, an index into ``LEVELS``; ``wanted`` picks another that the CPU has."""
    return _library.nni_dynconv_level(wanted) if _library is not None else 0


_lanes = 4 << level()


def lanes() -> int:
    """How many values the vectors of this CPU hold."""
    return _lanes
