"""Switches for a block of calls (``portable()``, ``deterministic()``), and the setting that a call is made in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import Parameter

from ..composed import COMPOSED, Composed, Parts, parts_of
from ..library import loaded

__all__ = [
    "PLAIN",
    "Setting",
    "deterministic",
    "grouped",
    "imagined",
    "is_exporting",
    "is_imagined",
    "is_portable",
    "is_saving_watched",
    "is_transformed",
    "modes",
    "noted",
    "portable",
    "setting_of",
    "without_kernels",
]

PLAIN = (Tensor, Parameter)  # what the compiled kernels read: no subclass
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7 has it


class _Modes(threading.local):
    """The switches of each thread; no context variables, which ``torch.compile`` can neither trace nor guard."""

    def __init__(self) -> None:  # in each thread; attributes of the class would not be guarded
        self.portable, self.kernels, self.deterministic, self.grouped = False, True, False, False
        self.plain: tuple[type, ...] = PLAIN
        self.noted: list[Any] | None = None  # who explains what runs has each choice told


modes = _Modes()


@contextmanager
def _switched(name: str, value: Any) -> Iterator[None]:
    before = getattr(modes, name)
    setattr(modes, name, value)
    try:
        yield
    finally:
        setattr(modes, name, before)


@contextmanager
def portable(enabled: bool = True) -> Iterator[None]:
    """Use only forms that ``torch.export`` and ONNX take with a dynamic batch, inside the block.

    Per-sample convolutions become unfold + matmul: ``groups = batch`` is a constant in ONNX. While
    ``torch.export`` or the ONNX exporter runs, this is on by itself.

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
    with _switched("portable", enabled):
        yield


@contextmanager
def grouped() -> Iterator[None]:
    """Compute per-sample convolutions by the groups of one, inside the block, also while an exporter runs.

    What is exported then takes just as many samples as it was exported with.
    """
    with _switched("grouped", True):
        yield


@contextmanager
def without_kernels() -> Iterator[None]:
    """Compute with torch's operators alone, inside the block, as where no compiler built the kernels.

    ``NNI_DYNCONV_KERNELS=torch`` in the environment does it for the whole process.
    """
    with _switched("kernels", False):
        yield


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
    with _switched("deterministic", enabled):
        yield


@contextmanager
def imagined() -> Iterator[None]:
    """Plan calls on fake tensors, which have no values, as those on real ones, inside the block."""
    with _switched("plain", (*PLAIN, FakeTensor)):
        yield


def is_imagined() -> bool:
    """Whether tensors have no values here, and what would run on real ones is asked for."""
    return FakeTensor in modes.plain


@contextmanager
def noted() -> Iterator[list[Any]]:
    """Keep how each call inside the block is computed, a :class:`~nni_dynconv.functional.planning.problem.Choice`."""
    choices: list[Any] = []
    with _switched("noted", choices):
        yield choices


def is_portable() -> bool:
    """Whether the calls of this block must survive an export with a dynamic batch."""
    if modes.grouped:
        return False
    if modes.portable or is_compiling():
        return modes.portable or is_exporting()
    return torch._C._get_tracing_state() is not None  # the older ONNX exporter traces


def is_saving_watched() -> bool:
    """Whether somebody takes what is saved for the backward, as activation checkpointing does; in no graph."""
    if is_compiling():
        return False
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None  # torch has no public word for it


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation watches, which want torch's own operators only."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class Setting(NamedTuple):
    """What, beside the shapes, decides."""

    device: str
    dtype: torch.dtype
    training: bool  # gradients are wanted
    kernels: bool = False  # the compiled kernels are there and may see these tensors
    portable: bool = False
    transformed: bool = False  # torch.func or forward-mode differentiation watches
    deterministic: bool = False  # what was measured on this machine must not count
    channels_last: bool = False  # x lies so in memory
    threaded: bool = False  # torch computes on more than one thread
    parts: Parts | None = None  # of the weight, where it is given by some


def setting_of(x: Tensor, weight: Tensor | Composed) -> Setting:
    """Return what, beside the shapes, decides on the path; every call pays for it: the cheap questions come first."""
    on_cpu, dtype = x.is_cpu, x.dtype
    training = (x.requires_grad or weight.requires_grad) and torch.is_grad_enabled()
    transformed, deterministic = modes.grouped or is_transformed(), modes.deterministic
    plain = type(weight) in modes.plain  # which is told sooner than that it has parts
    parts = parts_of(weight) if not plain and isinstance(weight, COMPOSED) else None
    suits = (
        on_cpu
        and dtype is torch.float32
        and not transformed
        and type(x) in modes.plain
        and plain
        and weight.dtype is torch.float32
        and weight.is_cpu  # type: ignore[union-attr]
        and loaded()
        and modes.kernels
        and not deterministic
        and not torch.is_autocast_enabled("cpu")
    )
    device = "cpu" if on_cpu else x.device.type
    channels_last = not x.is_contiguous() and _is_channels_last(x)
    threaded = not is_compiling() and torch.get_num_threads() > 1  # which no graph can ask
    portable = is_portable()
    return Setting(device, dtype, training, suits, portable, transformed, deterministic, channels_last, threaded, parts)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() in FORMATS and x.is_contiguous(memory_format=FORMATS[x.dim()])
