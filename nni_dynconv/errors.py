"""Errors of the package: each is a :class:`DynConvError` and the builtin error that a caller would expect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CandidateError",
    "CheckpointError",
    "ConfigError",
    "ContextError",
    "DtypeError",
    "DynConvError",
    "ExportError",
    "ForwardError",
    "LaunchError",
    "LearningError",
    "MediaError",
    "NotFiniteError",
    "OutOfMemoryError",
    "ParamsError",
    "RankError",
    "RunError",
    "SampleError",
    "ScopeError",
    "ShapeError",
    "SpaceError",
    "did_you_mean",
]


class DynConvError(Exception):
    """Base of every error that this package raises on purpose."""


class ShapeError(DynConvError, ValueError):
    """A tensor's axes do not fit each other."""


class DtypeError(DynConvError, TypeError):
    """Tensors of one call have different dtypes."""


class ParamsError(DynConvError, ValueError):
    """Explicit weights given to an op are not what its specs ask for."""


class ContextError(DynConvError, ValueError):
    """A context is missing, not wanted, or of the wrong batch size."""


class ScopeError(DynConvError, RuntimeError):
    """An op was called where nobody makes weights for it, or a forward came before ``reset()``."""


class SampleError(DynConvError, ValueError):
    """A sample names a label or a candidate that the space does not have, or lacks one."""


class SpaceError(DynConvError, TypeError):
    """A model space cannot be used: no dynamic op in it, or a primitive that is not supported."""


class ConfigError(DynConvError, ValueError):
    """A setting in a YAML or in ``classArgs`` is wrong."""


class LaunchError(DynConvError, RuntimeError):
    """An NNI experiment could not be started, or stopped before it brought a result."""


class ExportError(DynConvError, ValueError):
    """A network cannot be written or read back."""


class ForwardError(DynConvError, RuntimeError, ValueError):
    """A saved network cannot be run on what it is given: that does not fit, or its file was changed."""


class LearningError(DynConvError, RuntimeError):
    """A sampler is told what it cannot learn from."""


class NotFiniteError(DynConvError, ValueError):
    """A loss, a gradient or a parameter is no finite number, or too large to go on with."""


class CandidateError(DynConvError, RuntimeError):
    """An architecture raised an error as it ran in a search."""


class RankError(DynConvError, ValueError):
    """Architectures cannot be ranked, or rankings not be compared."""


class RunError(DynConvError, ValueError):
    """A folder is no run, or a run lacks what a command needs."""


class CheckpointError(DynConvError, ValueError):
    """A checkpoint cannot be written or read back, or is of another run."""


class OutOfMemoryError(DynConvError, RuntimeError, MemoryError):
    """Memory ran out inside a compiled kernel; torch's own operators raise a ``RuntimeError`` then."""


class MediaError(DynConvError, ValueError):
    """A video cannot be decoded."""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return `` Did you mean `x`?`` for the nearest known word, else the list of the known words.

    >>> did_you_mean("controler", ["controller", "sampler"])
    ' Did you mean `controller`?'
    >>> did_you_mean("zzz", ["controller", "sampler"])
    ' Known: `controller`, `sampler`.'
    """
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(word), names, n=1)
    if near:
        return f" Did you mean `{near[0]}`?"
    return f" Known: {', '.join(f'`{name}`' for name in names)}." if names else ""
