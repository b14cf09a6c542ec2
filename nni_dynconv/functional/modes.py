"""Switches for a block of calls (``portable()``, ``deterministic()``), and what the surroundings of a call allow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.autograd import forward_ad

__all__ = [
    "deterministic",
    "is_deterministic",
    "is_portable",
    "is_transformed",
    "portable",
    "wants_kernels",
    "without_kernels",
]

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7 has it
_portable: ContextVar[bool] = ContextVar("nni_dynconv.functional.portable", default=False)
_kernels: ContextVar[bool] = ContextVar("nni_dynconv.functional.kernels", default=True)
_deterministic: ContextVar[bool] = ContextVar("nni_dynconv.functional.deterministic", default=False)


@contextmanager
def portable(enabled: bool = True) -> Iterator[None]:
    """Use only forms that ``torch.export`` and ONNX take with a dynamic batch, inside the block.

    Per-sample convolutions become unfold + matmul: ``groups = batch`` is a constant in ONNX. While
    ``torch.export`` or the ONNX exporter runs, this is on by itself; ``torch.compile`` does not see it.

    Parameters
    ----------
    enabled
        ``False`` undoes an outer block's.

    Examples
    --------
    >>> from nni_dynconv.functional import conv2d
    >>> x, weight = torch.ones(2, 1, 3, 3), torch.ones(2, 1, 1, 3, 3)
    >>> with portable():
    ...     conv2d(x, weight).flatten().tolist()
    [9.0, 9.0]
    """
    token = _portable.set(enabled)
    try:
        yield
    finally:
        _portable.reset(token)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Compute with torch's operators alone, inside the block, as where no compiler built the kernels.

    ``NNI_DYNCONV_KERNELS=torch`` in the environment does it for the whole process.
    """
    token = _kernels.set(False)
    try:
        yield
    finally:
        _kernels.reset(token)


@contextmanager
def deterministic(enabled: bool = True) -> Iterator[None]:
    """Let the shapes alone decide how a call is computed, by torch's operators, inside the block.

    Whether the kernels were built, and what ``tune()`` measured, differs between machines, and with it the last bits of
    a result. (Two runs on one machine give the same bits anyway, where torch's operators do.)

    Parameters
    ----------
    enabled
        ``False`` undoes an outer block's.

    Examples
    --------
    >>> from nni_dynconv.functional import explain
    >>> with deterministic():
    ...     explain((8, 4, 9, 9), (8, 4, 1, 3, 3), padding=1, groups=4)
    conv2d, x: 8 4 9 9, weight: 8 4 1 3 3 (one set per sample), float32 on cpu, with gradients
      path `grouped`: the batch fits into the groups of one convolution
      output: 8 4 9 9; 23,328 multiply-adds
    """
    token = _deterministic.set(enabled)
    try:
        yield
    finally:
        _deterministic.reset(token)


def is_deterministic() -> bool:
    """Whether neither the kernels nor what was measured may decide."""
    return not torch.compiler.is_compiling() and _deterministic.get()


def wants_kernels() -> bool:
    """Whether the calls of this block may use the compiled kernels."""
    return torch.compiler.is_compiling() or (_kernels.get() and not _deterministic.get())


def is_portable() -> bool:
    """Whether the calls of this block must survive an export with a dynamic batch."""
    if torch.compiler.is_compiling():  # which cannot trace a context variable
        return _is_exporting()
    return _portable.get() or torch._C._get_tracing_state() is not None  # the older ONNX exporter traces


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation watches, which want torch's own operators only."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
