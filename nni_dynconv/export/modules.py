"""Modules as data: a class by name and the arguments of its constructor, which torch's layers keep as attributes."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import nn

from ..errors import ExportError
from .renames import renamed

__all__ = ["decode", "describe_module", "encode", "make_module"]

_IGNORED = ("device", "dtype")


def encode(value: Any) -> Any:
    """Write a constructor's argument as JSON.

    Examples
    --------
    >>> encode((3, 3)), encode(torch.float32)
    ({'tuple': [3, 3]}, {'dtype': 'float32'})
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return {"tuple": [encode(one) for one in value]}
    if isinstance(value, list):
        return {"list": [encode(one) for one in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(one) for key, one in value.items()}}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, nn.Module):
        return {"module": describe_module(value)}
    raise ExportError(f"{value!r} ({type(value).__name__}) cannot be written as data.")


def decode(data: Any) -> Any:
    """Read what :func:`encode` wrote."""
    if not isinstance(data, dict):
        return data
    ((kind, value),) = data.items()
    if kind == "tuple":
        return tuple(decode(one) for one in value)
    if kind == "list":
        return [decode(one) for one in value]
    if kind == "dict":
        return {key: decode(one) for key, one in value.items()}
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "module":
        return make_module(value)
    raise ExportError(f"Unknown kind of value `{kind}`.")


def describe_module(module: nn.Module, path: str = "", complete: bool = True) -> dict[str, Any]:
    """Write a module as ``{"class": "module:Class", "args": {...}}``.

    Parameters
    ----------
    path
        Where it stands, for the error's words.
    complete
        Whether the arguments alone make all its tensors; a controller's wait for its ``bind``.

    Raises
    ------
    ExportError
        Its constructor has an argument that it does not keep, so that it could not be made again.
    """
    cls = type(module)
    args: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or name in _IGNORED or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in vars(module) and not hasattr(module, name):
            raise ExportError(
                f"`{path or cls.__name__}` ({cls.__name__}) cannot be written: it does not keep its constructor's "
                f"argument `{name}`. Keep it as `self.{name}`."
            )
        value = vars(module)[name] if name in vars(module) else getattr(module, name)
        bias = name == "bias" and not isinstance(value, bool)  # torch's layers take a bool and keep a parameter or None
        args[name] = value is not None if bias else encode(value)
    description = {"class": f"{cls.__module__}:{cls.__qualname__}", "args": args}
    if complete:
        _check_twin(module, description, path)
    return description


def make_module(description: dict[str, Any]) -> nn.Module:
    """Make the module that :func:`describe_module` wrote, with new weights.

    Raises
    ------
    ExportError
        There is no such class, or it is no module.
    """
    module_name, _, name = renamed(description["class"]).partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ExportError(
            f"The class `{description['class']}` of the saved network is not to be found: {error}."
        ) from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ExportError(f"`{description['class']}` is no class of torch modules.")
    return found(**{key: decode(value) for key, value in description["args"].items()})


def _check_twin(module: nn.Module, description: dict[str, Any], path: str) -> None:
    with torch.random.fork_rng(devices=[]):
        twin = make_module(description)
    shapes = ({name: tuple(t.shape) for name, t in one.state_dict().items()} for one in (module, twin))
    ours, theirs = shapes
    if ours != theirs:
        raise ExportError(
            f"`{path or type(module).__name__}` ({type(module).__name__}) cannot be written: made again from its "
            f"attributes it has the tensors {theirs}, but it has {ours}."
        )
