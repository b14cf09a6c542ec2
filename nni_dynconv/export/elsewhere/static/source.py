"""A network's description as Python: layers and operators of torch, in a module that imports torch alone.

Names in a description are checked, and values are written as literals: a file that was made by others puts no code of
its own into what is written here.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ....errors import ExportError
from ...allowed import class_named
from ...values import decode, identifier
from .expressions import expression, parameters_of
from .steps import method_of

__all__ = ["source_of"]

HEAD = '''"""{name} of one context, by torch alone: `from network import load`, then `network = load()`."""

import collections
import contextlib
import math
import operator
from pathlib import Path

import torch
from torch import nn

FIXED = {fixed}
TIES = {ties}
{records}

class Network(nn.Module):
    """Its layers, with new weights; `load` returns it with those that it was written with."""

    def __init__(self):
        super().__init__()
'''
TAIL = '''

def load(path=None):
    """Return the network with its weights, for evaluation; by default those beside this file."""
    with torch.device("meta"):
        network = Network()
    path = Path(__file__).with_name("network.pt") if path is None else path
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return _tied(network).eval()


def _put(network, path, one):
    *owners, name = path.split(".")
    for part in owners:
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network._modules[part]
    if isinstance(one, nn.Module):
        network.add_module(name, one)
    elif isinstance(one, nn.Parameter):
        network.register_parameter(name, one)
    else:
        network.register_buffer(name, one)


def _tied(network):
    """Let tensors that were one be one, and those stay as they are that did not learn."""
    for name, other in TIES.items():
        owner, _, last = name.rpartition(".")
        there, _, kept = other.rpartition(".")
        module = network.get_submodule(owner)
        held = module._parameters if last in module._parameters else module._buffers
        held[last] = getattr(network.get_submodule(there), kept)
    for name in FIXED:
        network.get_parameter(name).requires_grad_(False)
    return network


def _expect(found, expected):
    """Refuse inputs of other sizes than those that it is known for; it decides by them."""
    if found != expected:
        raise ValueError(f"The network decides by sizes of its inputs: {expected} is known, {found} is not.")


def _expect_sizes(one, sizes):
    if one.dim() != len(sizes) or any(b is not None and a != b for a, b in zip(one.shape, sizes)):
        raise ValueError(f"A tensor of sizes {sizes} is known, where None is any, but not of {tuple(one.shape)}.")


def _as_written(arguments):
    for name, (value, known) in arguments.items():
        if type(value) is not type(known) or value != known:
            raise ValueError(f"`{name}` was {known!r} when the network was written, and cannot be {value!r}.")


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [one for part in value for one in _tensors(part)] if isinstance(value, (tuple, list)) else []
'''


def source_of(description: Mapping[str, Any], fixed: Sequence[str] = ()) -> str:
    """Return a network as Python.

    Parameters
    ----------
    description
        As :func:`~nni_dynconv.export.portable.describe_network` writes it.
    fixed
        Names of parameters that do not learn.

    Raises
    ------
    ExportError
        A layer is none of torch's, or something in it cannot be written.
    """
    records: dict[str, str] = {}
    body = [*_layers(description), *_forward(description, records)]
    ties = dict(description["ties"])
    told = {"name": identifier(description["name"]), "fixed": tuple(fixed), "ties": ties}
    defined = "".join(f"{name} = {made}\n" for name, made in records.items())
    return HEAD.format(**told, records=defined) + "\n".join(body) + "\n" + TAIL


def _layers(description: Mapping[str, Any]) -> Iterator[str]:
    for path, one in description["layers"].items():
        yield f"        _put(self, {expression(path)}, {_layer(path, one)})"
    for path, one in description["tensors"].items():
        shape, dtype = expression(tuple(one["shape"])), expression(decode({"dtype": one["dtype"]}))
        made = f"torch.zeros({shape}, dtype={dtype})"
        made = f"nn.Parameter({made}, {bool(one['trainable'])})" if one["parameter"] else made
        yield f"        _put(self, {expression(path)}, {made})"
    yield "        _tied(self)"


def _layer(path: str, description: Mapping[str, Any]) -> str:
    cls = class_named(description["class"]) if "class" in description else nn.Module
    if cls is nn.Module or getattr(nn, cls.__name__, None) is not cls:
        raise ExportError(f"`{path}` is no layer of torch, but {description.get('class', 'a network of its own')}.")
    given = {name: decode(value) for name, value in description["args"].items()}
    known = parameters_of(cls)
    told = [f"{name}={expression(one)}" for name, one in given.items() if not _is_default(known.get(name), one)]
    return f"nn.{cls.__name__}({', '.join(told)})"


def _is_default(parameter: Any, value: Any) -> bool:
    """Whether a layer is made so anyway; one number may stand for one along each axis."""
    if parameter is None or value == ():
        return False
    default = parameter.default
    return all(type(one) is type(default) and one == default for one in (value if type(value) is tuple else (value,)))


def _forward(description: Mapping[str, Any], records: dict[str, str]) -> Iterator[str]:
    """Yield what takes the inputs apart, and one method for each mode."""
    inputs: dict[int, str] = {}
    checks: list[str] = []
    names = {name: decode(one, {"input": _Input}) for name, one in description["inputs"].items()}
    for name, tree in names.items():
        _find(tree, name, inputs, checks)
    flat = [inputs[number] for number in range(len(inputs))]
    yield f"\n    def forward{_signature(description, checks, names)}:"
    if checks:
        yield f"        _as_written({{{', '.join(checks)}}})"
    modes = _different(description["modes"])
    for mode, asked in _asked(modes, flat):
        yield f"        {asked}return self.{mode.replace(' ', '_')}_mode({', '.join(flat)})"
    for mode, data in modes.items():
        yield ""
        yield from method_of(f"{mode.replace(' ', '_')}_mode", data, description["layers"], records)


def _different(modes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out training where it does what evaluation does."""
    same = all(modes.get(f"train{of}") == modes.get(f"eval{of}") for of in ("", " of one"))
    return {mode: one for mode, one in modes.items() if not (same and mode.startswith("train"))}


def _asked(modes: Mapping[str, Any], flat: Sequence[str]) -> Iterator[tuple[str, str]]:
    alone = f"{flat[0]}.dim() > 0 and {flat[0]}.shape[0] == 1" if flat else "False"
    if "train of one" in modes:
        yield "train of one", f"if self.training and {alone}: "
    if "train" in modes:
        yield "train", "if self.training: "
    if "eval of one" in modes:
        yield "eval of one", f"if {alone}: "
    yield "eval", ""


class _Input(int):
    """The number of an input, in an argument."""


def _find(tree: Any, where: str, inputs: dict[int, str], checks: list[str]) -> None:
    """Say where in an argument each input is, and what all else in it was."""
    if isinstance(tree, _Input):
        inputs[int(tree)] = where
    elif isinstance(tree, dict) and tree:
        for key, one in tree.items():
            _find(one, f"{where}[{expression(key)}]", inputs, checks)
    elif isinstance(tree, (tuple, list)) and tree:
        for number, one in enumerate(tree):
            _find(one, f"{where}[{number}]", inputs, checks)
    else:
        checks.append(f"{expression(where)}: ({where}, {expression(tree)})")


def _signature(description: Mapping[str, Any], checks: list[str], given: Mapping[str, Any]) -> str:
    """Write what it is called with; arguments that it was not given are of their defaults for good."""
    told, star = ["self"], False
    for name, kind, default in description["signature"]:
        if keyword.iskeyword(identifier(name)):
            raise ExportError(f"`{name}` is no name of an argument.")
        value = None if default in (None, "unset") else decode(default["is"])
        if kind in ("VAR_POSITIONAL", "VAR_KEYWORD"):
            told.append(f"*{name}" if kind == "VAR_POSITIONAL" else f"**{name}")
            star, value = True, () if kind == "VAR_POSITIONAL" else {}
        else:
            told += ["*"] if kind == "KEYWORD_ONLY" and not star else []
            star = star or kind == "KEYWORD_ONLY"
            told.append(name if default is None else f"{name}={expression(value)}")
        if name not in given:
            checks.append(f"{expression(name)}: ({name}, {expression(value)})")
    return f"({', '.join(told)})"
