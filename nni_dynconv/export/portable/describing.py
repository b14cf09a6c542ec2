"""A network as data: what it did on an example, in both modes, and the layers and tensors that it did it with."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import SymBool, SymFloat, SymInt, Tensor, nn

from ...errors import ExportError
from ...generation import Call
from ..values import encode, is_record, items_of
from .leaves import Leaf, leaves_of
from .nodes import Writer
from .tracing import Graph, Tracer, tensors_of

__all__ = ["describe_network"]

SYMBOLS = (Tensor, SymInt, SymFloat, SymBool)


def describe_network(
    network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, alone: Call | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Write down what a network does, in training and evaluation.

    Parameters
    ----------
    args, kwargs
        An example of its inputs. Tensors are inputs of the saved network too, of any size of which it does the same;
        all else is part of it.
    alone
        The same of one sample: a network that decides by sizes may do something else with it.

    Returns
    -------
    The description, as JSON, and the tensors in it that the network does not have by name.

    Raises
    ------
    ExportError
        It decides by values of tensors, or does what a graph cannot.
    """
    signature = signature_of(network)
    given = dict(signature.bind(*args, **(kwargs or {})).arguments)
    inputs: list[Tensor] = []
    trees = {name: encode(one, _numbering("input", inputs, Tensor)) for name, one in given.items()}
    leaves = leaves_of(network, describe_alone)
    told = _Told(network, leaves)
    training, asked = network.training, False
    modes: dict[str, dict[str, Any] | None] = {}
    try:
        for mode in ("eval", "train"):
            network.train(mode == "train")
            if mode == "train" and not asked:
                break
            modes[mode], asked = told.write(*_traced(network, leaves, given, inputs), len(inputs))
            if alone is not None and _decides(modes[mode]):
                modes[f"{mode} of one"] = _of_one(network, leaves, told, alone)
    finally:
        network.train(training)
    return {
        "name": type(network).__name__,
        "signature": [_parameter(one) for one in signature.parameters.values()],
        "inputs": trees,
        "modes": {mode: one for mode, one in modes.items() if one is not None},
        **told.parts(),
    }, told.constants


def _decides(mode: dict[str, Any] | None) -> bool:
    return mode is not None and any("check" in step for step in mode["steps"])


def _of_one(network: nn.Module, leaves: Any, told: _Told, call: Call) -> dict[str, Any] | None:
    """Return what a network that decides by sizes does with one sample; ``None`` where it takes none."""
    given = dict(signature_of(network).bind(*call.args, **call.kwargs).arguments)
    inputs: list[Tensor] = []
    encode(given, _numbering("input", inputs, Tensor))
    try:
        return told.write(*_traced(network, leaves, given, inputs), len(inputs))[0]
    except ExportError:
        return None


def describe_alone(network: nn.Module, args: Sequence[Any]) -> dict[str, Any]:
    """Describe a module that brings no values of its own."""
    description, constants = describe_network(network, args)
    if constants:
        raise ExportError(f"{type(network).__name__} makes tensors of values of its own, which cannot be written here.")
    return {"portable": description}


class _Told:
    """What graphs of a network name."""

    def __init__(self, network: nn.Module, leaves: Mapping[nn.Module, Leaf]):
        self.network = network
        self.leaves = {leaf.path: leaf for leaf in leaves.values()}
        self.layers: dict[str, Any] = {}
        self.tensors: dict[str, Any] = {}
        self.constants: dict[str, Tensor] = {}

    def write(self, graph: Graph, form: Any, inputs: int) -> tuple[dict[str, Any], bool]:
        """Write a graph, and keep what it names; return also whether it depends on the mode."""
        writer = Writer(graph, inputs)
        own = tensors_of(self.network)
        names = {}
        for name in writer.tensors:
            self.tensors[name] = _tensor(own[name])
        for name in graph.constants:
            names[name] = self._constant(graph.constants[name])
        for step in writer.steps:
            path = step.get("layer") or step.get("read", [None])[0]
            if path is not None:
                self.layers[path] = self.leaves[path].description
            if isinstance(step.get("get"), dict):
                step["get"] = names[step["get"]["constant"]]
        return {"steps": writer.steps, "output": _put(form, writer.output), "sizes": writer.sizes}, graph.asked

    def _constant(self, value: Tensor) -> str:
        same = (name for name, one in self.constants.items() if one.shape == value.shape and one.dtype == value.dtype)
        name = next((name for name in same if torch.equal(self.constants[name], value)), None)
        if name is None:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = value.detach()
            self.tensors[name] = _tensor(value.detach())
        return name

    def parts(self) -> dict[str, Any]:
        """Return layers and tensors; of a tensor that stands in several layers, the name that it is kept by too."""
        inside = tuple(f"{path}." for path in self.layers)
        every = {
            **dict(self.network.named_parameters(remove_duplicate=False)),
            **dict(self.network.named_buffers(remove_duplicate=False)),
        }
        kept = {name: one for name, one in every.items() if name in self.tensors or name.startswith(inside)}
        first: dict[Tensor, str] = {}
        ties = {name: first[one] for name, one in kept.items() if first.setdefault(one, name) != name}
        return {"layers": self.layers, "tensors": self.tensors, "ties": ties}


def _traced(network: nn.Module, leaves: Any, given: Mapping[str, Any], inputs: list[Tensor]) -> tuple[Graph, Any]:
    """Return a graph, and how what comes out of it is put together."""
    form: list[Any] = []

    def run(tensors: list[Tensor]) -> list[Any]:
        left = iter(tensors)
        bound = inspect.BoundArguments(signature_of(network), OrderedDict(_replaced(dict(given), left)))
        flat: list[Any] = []
        form[:] = [encode(network(*bound.args, **bound.kwargs), _numbering("value", flat, SYMBOLS))]
        return flat

    return Tracer(network, leaves).trace(run, inputs), form[0]


def _numbering(kind: str, found: list[Any], kinds: Any) -> Callable[[Any], Any]:
    def numbered(value: Any) -> Any:
        if not isinstance(value, kinds):
            return None
        found.append(value)
        return {kind: len(found) - 1}

    return numbered


def _replaced(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Put tensors in the places of those in an argument, in the order of ``encode``."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(one, tensors) for one in value))
    if isinstance(value, (tuple, list)):
        return type(value)([_replaced(one, tensors) for one in value])
    if is_record(value) and not isinstance(value, dict):
        return replace(value, **{key: _replaced(one, tensors) for key, one in items_of(value).items()})
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, one in value.items():
            made[key] = _replaced(one, tensors)
        return made
    return value


def _put(form: Any, output: list[Any]) -> Any:
    """Put what a graph gives in the places of its numbers."""
    if isinstance(form, list):
        return [_put(one, output) for one in form]
    if not isinstance(form, dict):
        return form
    if set(form) == {"value"}:
        return output[form["value"]]
    return {key: _put(one, output) for key, one in form.items()}


def signature_of(network: nn.Module) -> inspect.Signature:
    """Return what a network is called with."""
    return getattr(network, "call_signature", None) or inspect.signature(network.forward)


def _parameter(one: inspect.Parameter) -> list[Any]:
    if one.default is one.empty:
        return [one.name, one.kind.name, None]
    try:
        return [one.name, one.kind.name, {"is": encode(one.default)}]
    except ExportError:
        return [one.name, one.kind.name, "unset"]


def _tensor(one: Tensor) -> dict[str, Any]:
    described = {"shape": list(one.shape), "dtype": str(one.dtype).removeprefix("torch.")}
    return {**described, "parameter": isinstance(one, nn.Parameter), "trainable": one.requires_grad}
