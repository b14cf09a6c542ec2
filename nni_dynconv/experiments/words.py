"""Errors of a trial in words: what was done, what came of it, and, where it is known, the way out."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DynConvError

__all__ = ["doing", "form_of", "hint_for", "told"]

OURS = Path(__file__).parents[1]
LIBRARIES = tuple(Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib"))
GPU_WORDS = ("gpu", "cuda", "nvidia")


@contextmanager
def doing(what: str, more: str = "") -> Iterator[None]:
    """For a block, say of an error what was being done, where, and what may help.

    Raises
    ------
    DynConvError
        One of this package's keeps its class and words.
    """
    try:
        yield
    except DynConvError as error:
        _add(error, more)
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {told(error)}{more}") from error


def _add(error: DynConvError, more: str) -> None:
    if more and error.args and more not in str(error):
        error.args = (f"{error}{more}", *error.args[1:])


def told(error: BaseException) -> str:
    """Return an error in words: of ours as it is, of others with the place in the user's code, and a hint."""
    if isinstance(error, DynConvError):
        return str(error)
    said = str(error).strip() or "it says nothing"
    return f"{type(error).__name__}: {said}{_place(error)}{hint_for(said)}"


def _place(error: BaseException) -> str:
    """Where the user's own code was, innermost first; where none was, nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and not path.is_relative_to(OURS) and not any(map(path.is_relative_to, LIBRARIES)):
            return f" (in {frame.filename}, line {frame.lineno}: `{frame.line}`)"
    return ""


def hint_for(said: str) -> str:
    """Return what helps against a known error of a library's, as a sentence; nothing for an unknown one."""
    small = said.lower()
    if not torch.cuda.is_available() and any(word in small for word in GPU_WORDS):
        return (
            " This machine has no GPU that torch can use (`torch.cuda.is_available()` is False): take "
            '`accelerator="auto"`, which takes the CPU then, or run it where there is one.'
        )
    if "out of memory" in small:
        return " Take smaller batches (the loader's `batch_size`), or a smaller space."
    return ""


def form_of(batch: Any) -> str:
    """Return what a batch is made of.

    >>> form_of(((torch.zeros(8, 3), torch.zeros(8, 5)), torch.zeros(8).long()))
    '((float32 (8, 3), float32 (8, 5)), int64 (8,))'
    """
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"
    if isinstance(batch, dict):
        return "{" + ", ".join(f"{key!r}: {form_of(one)}" for key, one in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        left, right = "()" if isinstance(batch, tuple) else "[]"
        return left + ", ".join(map(form_of, batch)) + right
    return type(batch).__name__
