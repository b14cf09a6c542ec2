"""A network as data: its ``torch.fx`` graph as JSON, so that it can be read back without the class that defined it."""

from __future__ import annotations

import importlib
import re
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import _get_qualified_name

from ..errors import ExportError
from ..generation import context
from ..ops import DynamicOp
from ..sites import order_told
from . import modules

__all__ = ["describe_network", "make_network", "trace"]

LEAVES = (DynamicOp, context.VectorContext, context.FeatureMapContext, context.SequenceContext)
OPERATIONS = ("placeholder", "get_attr", "call_module", "call_function", "call_method", "output")
PLACES = ("torch", "torch.nn.functional", "torch._C._nn", "operator", "_operator", "math")
FORBIDDEN = (
    "load",
    "save",
    "compile",
    "classes",
    "ops",
    "hub",
    "import_ir_module",
    "attrgetter",
    "methodcaller",
    "call",
)
_NAME = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"\w+(\.\w+)*")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        torchs_own = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        return torchs_own or isinstance(module, LEAVES)

    def call_module(self, module: Any, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(module, DynamicOp):  # what it, or a block around it, says of repeated samples
            told = kwargs.get("repeats") or order_told() or module.repeats
            kwargs = kwargs if told is None else {**kwargs, "repeats": told}
        return super().call_module(module, forward, args, kwargs)


def trace(network: nn.Module) -> fx.GraphModule:
    """Write down what a network does, in evaluation mode; its layers are shared with it.

    Raises
    ------
    ExportError
        Its forward decides by values of tensors, or calls what cannot be traced.
    """
    training = network.training
    network.eval()
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
        traced.graph.eliminate_dead_code()
        traced.delete_all_unused_submodules()
        traced.recompile()
        return traced
    except (fx.proxy.TraceError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ExportError(
            f"{type(network).__name__} cannot be written as a graph: {error} Keep decisions that depend on tensors out "
            f"of its forward, or put them into a module of their own that `torch.fx` can trace."
        ) from error
    finally:
        network.train(training)


def describe_network(traced: fx.GraphModule) -> dict[str, Any]:
    """Write a traced network as JSON: nodes, layers, and the tensors that it holds itself."""
    layers, tensors = {}, {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            layers[node.target] = modules.describe_module(traced.get_submodule(node.target), node.target)
        elif node.op == "get_attr":
            tensor = _attribute(traced, node.target)
            tensors[node.target] = {"shape": list(tensor.shape), "parameter": isinstance(tensor, nn.Parameter)}
    return {"nodes": [_write_node(node) for node in traced.graph.nodes], "layers": layers, "tensors": tensors}


def make_network(description: dict[str, Any]) -> fx.GraphModule:
    """Make the network that :func:`describe_network` wrote, with new weights.

    Raises
    ------
    ExportError
        The description is broken, or calls what no network needs.
    """
    attributes: dict[str, Any] = {path: modules.make_module(one) for path, one in description["layers"].items()}
    for path, one in description["tensors"].items():
        empty = torch.empty(one["shape"])
        attributes[path] = nn.Parameter(empty) if one["parameter"] else empty
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for written in description["nodes"]:
        nodes[written["name"]] = _read_node(graph, written, nodes)
    graph.lint()
    return fx.GraphModule(attributes, graph)


def _attribute(network: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(network.get_submodule(owner), name)


# Nodes


def _write_node(node: fx.Node) -> dict[str, Any]:
    target = _write_function(node.target) if node.op == "call_function" else node.target
    written = {"name": node.name, "op": node.op, "target": target, "args": _write(node.args)}
    return {**written, "kwargs": {key: _write(value) for key, value in node.kwargs.items()}}


def _read_node(graph: fx.Graph, written: dict[str, Any], nodes: dict[str, fx.Node]) -> fx.Node:
    name, op, target = written["name"], written["op"], written["target"]
    args = _read(written["args"], nodes)
    kwargs = {key: _read(value, nodes) for key, value in written["kwargs"].items()}
    pattern = _NAME if op in ("placeholder", "call_method", "output") else _PATH
    if op not in OPERATIONS:
        raise ExportError(f"The saved network has a node `{name}` of the unknown kind `{op}`.")
    if not _NAME.fullmatch(name) or not pattern.fullmatch(target):
        raise ExportError(f"The saved network has a node `{name}` with the target `{target}`, which is no name.")
    if op == "call_method" and target.startswith("_"):
        raise ExportError(f"The saved network calls the private method `{target}`.")
    function = _read_function(target, args) if op == "call_function" else target
    return graph.create_node(op, function, args, kwargs, name=name)


def _write_function(function: Any) -> str:
    name = "builtins.getattr" if function is getattr else _get_qualified_name(function)
    try:
        if _find_function(name) is function:
            return name
    except ExportError:
        pass
    raise ExportError(f"The network calls `{name}`, which a saved network may not. Put it into a module of its own.")


def _read_function(name: str, args: tuple[Any, ...]) -> Any:
    if name == "builtins.getattr" and str(args[1]).startswith("_"):
        raise ExportError(f"The saved network reads the private attribute `{args[1]}`.")
    return _find_function(name)


def _find_function(name: str) -> Any:
    if name == "builtins.getattr":
        return getattr
    place, _, last = name.rpartition(".")
    if place in PLACES and not last.startswith("_") and last not in FORBIDDEN:
        found = getattr(importlib.import_module(place), last, None)
        if callable(found) and not isinstance(found, type):
            return found
    raise ExportError(f"The saved network calls `{name}`, which is no function of torch, operator or math.")


# Arguments: those of modules, and nodes, slices and the ellipsis


def _write(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [_write(one) for one in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__ if type(value) in (tuple, list) else "list": [_write(one) for one in value]}
    return modules.encode(value)


def _read(data: Any, nodes: dict[str, fx.Node]) -> Any:
    if not isinstance(data, dict):
        return data
    ((kind, value),) = data.items()
    if kind == "node":
        return nodes[value]
    if kind == "slice":
        return slice(*(_read(one, nodes) for one in value))
    if kind == "ellipsis":
        return Ellipsis
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](_read(one, nodes) for one in value)
    return modules.decode(data)
