"""Modules as data: a class by name and the arguments of its constructor, which torch's layers keep as attributes."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..ops import DynamicOp
from .allowed import class_named, is_allowed, name_of, object_named
from .values import decode, encode

__all__ = ["describe_module", "foreign_in", "make_module", "shapes_of"]

_IGNORED = ("device", "dtype")
_OURS = ("site", "recipe", "repeats", "original")
"""What is told of an op elsewhere in a file."""
_PLAIN = (bool, int, float, str, tuple, list, type(None), torch.dtype)


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
        Its constructor has an argument that it does not keep, so that it could not be made again; or made again it is
        another one.
    """
    cls = type(module)
    args: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or name in _IGNORED or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in vars(module) and not hasattr(module, name):
            if complete and parameter.default is not parameter.empty:
                continue  # the default, unless the twin shows that it was another
            raise ExportError(
                f"`{path or cls.__name__}` ({cls.__name__}) cannot be written: it does not keep its constructor's "
                f"argument `{name}`. Keep it as `self.{name}`."
            )
        value = vars(module)[name] if name in vars(module) else getattr(module, name)
        bias = name == "bias" and not isinstance(value, bool)  # torch's layers take a bool and keep a parameter or None
        args[name] = value is not None if bias else encode(value, _known)
    description = {"class": name_of(cls), "args": args}
    if complete:
        _check_twin(module, description, path)
    return description


def _known(value: Any) -> Any:
    """Write a module, or settings of a class that says how they are made again, as those of transformers are."""
    if isinstance(value, nn.Module):
        return {"module": describe_module(value)}
    if callable(getattr(value, "to_dict", None)) and callable(getattr(type(value), "from_dict", None)):
        return {"settings": {"class": name_of(type(value)), "from": encode(value.to_dict())}}
    return None


def make_module(description: Mapping[str, Any], trust: Collection[str] = ()) -> nn.Module:
    """Make the module that :func:`describe_module` wrote, with new weights.

    Parameters
    ----------
    trust
        As of :func:`~nni_dynconv.export.load`.

    Raises
    ------
    ExportError
        There is no such class, it is no module, or it is neither torch's nor this package's and not trusted.
    """
    if "portable" in description:
        from .portable import Portable  # which makes its layers here

        return Portable(description["portable"], trust)
    return _make(class_named(description["class"], trust), description, trust)


def _make(cls: type[nn.Module], description: Mapping[str, Any], trust: Collection[str]) -> nn.Module:
    known = {"module": lambda one: make_module(one, trust), "settings": lambda one: _settings(one, trust)}
    return cls(**{key: decode(value, known) for key, value in description["args"].items()})


def _settings(description: Mapping[str, Any], trust: Collection[str]) -> Any:
    made: Any = object_named(description["class"], trust)
    return made.from_dict(decode(description["from"]))


def foreign_in(data: Any) -> Iterator[str]:
    """Yield the classes in a description that are neither torch's nor this package's."""
    if isinstance(data, Mapping):
        if isinstance(data.get("class"), str) and not is_allowed(data["class"]):
            yield data["class"]
        for one in data.values():
            yield from foreign_in(one)
    elif isinstance(data, list):
        for one in data:
            yield from foreign_in(one)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of some tensors."""
    return {name: tuple(one.shape) for name, one in tensors.items()}


def _check_twin(module: nn.Module, description: Mapping[str, Any], path: str) -> None:
    try:
        with torch.random.fork_rng(devices=[]):
            twin = _make(type(module), description, {one.partition(":")[0] for one in foreign_in(description["args"])})
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"`{path or type(module).__name__}` ({type(module).__name__}) cannot be written: it cannot be made again "
            f"from its attributes ({type(error).__name__}: {error})."
        ) from error
    ours, theirs = (shapes_of(one.state_dict()) for one in (module, twin))
    if ours != theirs:
        raise ExportError(
            f"`{path or type(module).__name__}` ({type(module).__name__}) cannot be written: made again from its "
            f"attributes it has the tensors {theirs}, but it has {ours}."
        )
    for name, value in _plain_of(module).items():
        if _plain_of(twin).get(name, value) != value:
            raise ExportError(
                f"`{path or type(module).__name__}` ({type(module).__name__}) cannot be written: made again from its "
                f"constructor's arguments it has `{name}` {getattr(twin, name)!r}, but it has {value!r}."
            )


def _plain_of(module: nn.Module) -> dict[str, Any]:
    own = {name: one for name, one in vars(module).items() if not name.startswith("_") and name != "training"}
    if isinstance(module, DynamicOp):
        own = {name: one for name, one in own.items() if name not in _OURS}
    return {name: one for name, one in own.items() if isinstance(one, _PLAIN)}
