"""What a network did, as data: a list of steps, each an operator, a layer, a size or a check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...errors import ExportError
from ..allowed import SIZES, operator_named
from ..values import encode
from .tracing import Graph, Place, check, layer, read

__all__ = ["Writer"]

NAMES = {function: name for name, function in SIZES.items()}
ENTER, LEAVE = torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast


class Writer:
    """Writes a graph as steps.

    Parameters
    ----------
    graph
        What was traced.
    inputs
        How many inputs it has: values 0, 1, ...; those of steps come behind them.

    Attributes
    ----------
    steps, output
        As JSON.
    tensors
        Names of the parameters and buffers that it uses.
    """

    def __init__(self, graph: Graph, inputs: int):
        self.graph = graph
        self.steps: list[dict[str, Any]] = []
        self.tensors: list[str] = []
        self.first: dict[str, Any] = {}
        self.calls: dict[int, int] = {}
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self.numbers: dict[fx.Node, int] = {node: k for k, node in enumerate(placeholders[len(graph.tensors) :])}
        self.sizes = [self._sizes(Place("input", k, 0, 0)) for k in range(inputs)]
        self.count = inputs
        for node, name in zip(placeholders, graph.tensors, strict=False):
            if node.users:
                self.tensors.append(name)
                self._add(node, {"get": name})
        self.output: list[Any] = []
        for node in graph.graph.nodes:
            if node.op == "output":
                self.output = [self._write(one) for one in node.args[0]]
            elif node.op != "placeholder":
                self._add(node, self._step(node))

    def _add(self, node: fx.Node, step: dict[str, Any]) -> None:
        self.numbers[node] = self.count
        self.count += 1
        self.steps.append(step)

    def _step(self, node: fx.Node) -> dict[str, Any]:
        target: Any = node.target
        if node.op == "get_attr":
            return {"get": {"constant": target}}
        if node.op != "call_function":
            raise ExportError(f"A graph has a node `{node.op}`, which cannot be written.")
        if target in _SPECIAL:
            return _SPECIAL[target](self, node)
        kind, name = _named(target)
        return {kind: name, **self._arguments(node.args, node.kwargs)}

    def _arguments(self, args: Any, kwargs: Any) -> dict[str, Any]:
        written: dict[str, Any] = {"args": [self._write(one) for one in args]}
        return {**written, "kwargs": {key: self._write(one) for key, one in kwargs.items()}} if kwargs else written

    def _write(self, value: Any) -> Any:
        return encode(value, self._known)

    def _known(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return {"value": self.numbers[value]}
        if isinstance(value, torch.device):
            if value.type != "cpu":
                raise ExportError(f"The network makes tensors on {value}. Make them where its inputs are: `x.device`.")
            return {"device": "own"}
        return None

    def _layer(self, node: fx.Node) -> dict[str, Any]:
        path, *args = node.args
        call = node.meta["call"]
        self.calls[call] = self.count
        outputs = {place.output for place in self.graph.sizes if (place.kind, place.number) == ("call", call)}
        sizes = [self._sizes(Place("call", call, output, 0)) for output in sorted(outputs)]
        return {"layer": path, **self._arguments(args, node.kwargs), "sizes": sizes}

    def _sizes(self, place: Place) -> list[Any]:
        """Write the sizes of a tensor: a number, ``"same"``, the place of another, or ``None``."""
        written: list[Any] = []
        while (here := place._replace(axis=len(written))) in self.graph.sizes:
            size = self.graph.sizes[here]
            if isinstance(size, int) or size == "same":
                written.append(size)
                continue
            value = here.number if here.kind == "input" else self.calls[here.number]
            own = [value, here.output, here.axis]
            before = self.first.setdefault(size, own)
            written.append(None if before is own else before)
        return written

    def _check(self, node: fx.Node) -> dict[str, Any]:
        return {"check": [self._write(one) for one in node.args]}


def _named(target: Any) -> tuple[str, str]:
    """Return the kind and name of what a node calls."""
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target.name().partition("::")
        full = f"{namespace}::{name.partition('.')[0]}.{target._overloadname}"
        if namespace == "aten" and operator_named(full) is target:
            return "call", full
        raise ExportError(f"The network calls `{target.name()}`, which a saved network may not.")
    if target in NAMES:
        return "size", NAMES[target]
    raise ExportError(f"The network calls `{getattr(target, '__name__', target)}`, which a saved network may not.")


_SPECIAL: dict[Any, Callable[[Writer, fx.Node], dict[str, Any]]] = {
    layer: Writer._layer,
    read: lambda writer, node: {"read": list(node.args)},
    check: Writer._check,
    torch._C._set_grad_enabled: lambda writer, node: {"grad": node.args[0]},
    ENTER: lambda writer, node: {"autocast": [writer._write(one) for one in node.args]},
    LEAVE: lambda writer, node: {"leave": writer._write(node.args[0])},
}
