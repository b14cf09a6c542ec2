"""Values as Python expressions."""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ....errors import ExportError

__all__ = ["Code", "expression", "parameters_of", "reach"]

_PATH = re.compile(r"\w+(\.\w+)*")


class Code(str):
    """What stands in an expression as it is."""


def expression(value: Any) -> str:
    """Write a value as Python.

    Raises
    ------
    ExportError
        It is of a kind that has no literal.

    Examples
    --------
    >>> expression({"size": (1, float("inf")), "like": [Code("v1"), torch.float32]})
    "{'size': (1, float('inf')), 'like': [v1, torch.float32]}"
    """
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"float('{float(value)}')"
    if value is None or isinstance(value, (bool, int)):
        return repr(value) if value is None or isinstance(value, bool) else repr(int(value))
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return str(value)
    if value is Ellipsis:
        return "..."
    if isinstance(value, slice):
        return f"slice({', '.join(map(expression, (value.start, value.stop, value.step)))})"
    return _collection(value)


def _collection(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{expression(key)}: {expression(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(expression, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(expression, value))}{',' * (len(value) == 1)})"
    raise ExportError(f"{value!r} ({type(value).__name__}) cannot be written as Python.")


def reach(path: str) -> Code:
    """Write how a layer or a tensor is reached.

    Examples
    --------
    >>> reach("body.0.conv")
    "getattr(self.body, '0').conv"
    """
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise ExportError(f"{path!r} is no path in a network.")
    found = "self"
    for part in path.split("."):
        plain = part.isidentifier() and not keyword.iskeyword(part)
        found = f"{found}.{part}" if plain else f"getattr({found}, {part!r})"
    return Code(found)


def parameters_of(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Return what the constructor of a layer takes."""
    return inspect.signature(cls.__init__).parameters
