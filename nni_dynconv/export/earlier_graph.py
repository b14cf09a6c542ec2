"""The forward of a network in files up to format 3: a ``torch.fx`` graph of torch's functions and layers, read only."""

from __future__ import annotations

import importlib
import math
import operator
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import get_overridable_functions

from ..errors import ExportError
from . import modules
from .values import decode, identifier

__all__ = ["make_network"]

OPERATIONS = ("placeholder", "get_attr", "call_module", "call_function", "call_method", "output")
PLACES = ("torch", "torch.nn.functional", "torch._C._nn", "operator", "_operator", "math")
MAKING = frozenset(
    [
        "arange",
        "as_tensor",
        "broadcast_shapes",
        "empty",
        "eye",
        "full",
        "full_like",
        "is_tensor",
        "linspace",
        "logspace",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "tensor",
        "tril_indices",
        "triu_indices",
        "zeros",
    ]
)
"""Functions of torch that take no tensor, and make one."""
NOT_OPERATORS = ("attrgetter", "call", "itemgetter", "methodcaller")
METHODS = frozenset(
    [
        "bfloat16",
        "bool",
        "byte",
        "char",
        "dim",
        "double",
        "element_size",
        "float",
        "get",
        "half",
        "int",
        "item",
        "items",
        "keys",
        "long",
        "ndimension",
        "new_tensor",
        "norm",
        "numel",
        "short",
        "size",
        "split",
        "stride",
        "tolist",
        "type",
        "type_as",
        "unflatten",
        "values",
    ]
)
"""Methods that are no operators of torch's."""
ATTRIBUTES = frozenset(
    [
        "H",
        "T",
        "data",
        "device",
        "dtype",
        "imag",
        "is_cuda",
        "itemsize",
        "layout",
        "mH",
        "mT",
        "ndim",
        "real",
        "requires_grad",
        "shape",
    ]
)
REFUSED = frozenset(["backward", "from_file", "numpy", "resize_", "resize_as_", "retain_grad", "set_", "share_memory_"])
_PATH = re.compile(r"\w+(\.\w+)*")


def make_network(description: Mapping[str, Any], trust: Collection[str] = ()) -> fx.GraphModule:
    """Make the network that a graph tells of, with new weights.

    Raises
    ------
    ExportError
        The description is broken, or calls what no network needs.
    """
    layers = description["layers"].items()
    attributes: dict[str, Any] = {_path(path): modules.make_module(one, trust) for path, one in layers}
    for path, one in description["tensors"].items():
        empty = torch.empty(one["shape"])
        attributes[_path(path)] = nn.Parameter(empty) if one["parameter"] else empty
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for written in description["nodes"]:
        nodes[written["name"]] = _read_node(graph, written, nodes)
    graph.lint()
    return fx.GraphModule(attributes, graph)


def _path(path: Any) -> str:
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise ExportError(f"{path!r} is no path in a network.")
    return path


def _read_node(graph: fx.Graph, written: Mapping[str, Any], nodes: Mapping[str, fx.Node]) -> fx.Node:
    name, op, target = identifier(written["name"]), written["op"], written["target"]
    known = {"node": lambda one: nodes[one]}
    args = decode(written["args"], known)
    kwargs = {identifier(key): decode(value, known) for key, value in written["kwargs"].items()}
    if op not in OPERATIONS:
        raise ExportError(f"The saved network has a node `{name}` of the unknown kind `{op}`.")
    if op in ("placeholder", "output"):
        target = identifier(target)
    elif op == "call_method":
        target = _method(target)
    elif op == "call_function":
        target = _function(target, args)
    else:
        target = _path(target)
    return graph.create_node(op, target, args, kwargs, name=name)


def _method(name: Any) -> str:
    known = name in METHODS or (identifier(name) not in REFUSED and hasattr(torch.ops.aten, name))
    if not known or name.startswith("_") or not hasattr(torch.Tensor, name):
        raise ExportError(f"The saved network calls the method `{name}`, which a saved network may not.")
    return name


def _function(name: Any, args: tuple[Any, ...]) -> Any:
    if name == "builtins.getattr":
        if args[1] not in ATTRIBUTES:
            raise ExportError(f"The saved network reads the attribute `{args[1]}`, which a saved network may not.")
        return getattr
    place, _, last = name.rpartition(".")
    if place in PLACES and last.isidentifier() and not last.startswith("_") and last not in REFUSED:
        found = getattr(importlib.import_module(place), last, None)
        if found is not None and _is_known(found, place, last):
            return found
    raise ExportError(f"The saved network calls `{name}`, which is no function of torch, operator or math.")


def _is_known(function: Any, place: str, name: str) -> bool:
    if place == "math":
        return callable(function) and function is getattr(math, name)
    if place in ("operator", "_operator"):
        return callable(function) and function is getattr(operator, name) and name not in NOT_OPERATORS
    return name in MAKING or any(function is one for one in _of_torch())


@cache
def _of_torch() -> list[Any]:
    """Return the functions of torch that take tensors."""
    found = get_overridable_functions()
    return [*found[torch], *found[torch.nn.functional], *found.get(torch.functional, [])]
