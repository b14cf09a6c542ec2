"""What a network does in one mode, as a method: a line for each step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ....errors import ExportError
from ...allowed import SIZES, operator_named
from ...values import decode
from .expressions import Code, expression, reach

__all__ = ["method_of"]

SETTING = ("grad", "autocast", "leave")
CHANNELS = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")
LAST = ("Linear", "LayerNorm", "Embedding")
"""Layers of torch that give a number of channels, along axis 1 or the last, which is their own."""


def method_of(name: str, mode: Mapping[str, Any], layers: Mapping[str, Any], records: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a method.

    Parameters
    ----------
    name
        Its own.
    mode
        As a description has it.
    layers
        Of the network, as described.
    records
        Named tuples that it returns: what they are, by name; added to.
    """
    written = _Method(mode, layers, records)
    inputs = [_value(number) for number in range(written.inputs)]
    yield f"    def {name}(self{''.join(f', {one}' for one in inputs)}):"
    indent = " " * 8
    if any(kind in step for step in mode["steps"] for kind in SETTING):
        yield f"{indent}given = torch.is_grad_enabled()"
        yield f"{indent}with contextlib.ExitStack() as switched:"
        indent += " " * 4
    for line in written.lines():
        yield f"{indent}{line}"


def _value(number: int) -> Code:
    return Code(f"v{number}")


class _Method:
    def __init__(self, mode: Mapping[str, Any], layers: Mapping[str, Any], records: dict[str, str]):
        self.mode, self.layers, self.records = mode, layers, records
        self.inputs = len(mode["sizes"])
        self.used: set[int] = set()

    def lines(self) -> Iterator[str]:
        """Yield steps, each followed by what lets values go that no later one uses."""
        for number, sizes in enumerate(self.mode["sizes"]):
            yield f"_expect_sizes({_value(number)}, {self._sizes(sizes)})"
        self.used.clear()
        told = []
        for number, step in enumerate(self.mode["steps"], self.inputs):
            lines = list(self._step(step, number))
            told.append((lines, {*self.used, *([number] if lines[0].startswith(f"{_value(number)} =") else [])}))
            self.used.clear()
        output = f"return {self._output(decode(self.mode['output'], self._known))}"
        last = {number: k for k, (_, used) in enumerate(told) for number in used if number >= self.inputs}
        for k, (lines, used) in enumerate(told):
            past = sorted(one for one in used if last.get(one) == k and one not in self.used)
            yield from lines
            if past:
                yield f"del {', '.join(map(_value, past))}"
        yield output

    @property
    def _known(self) -> dict[str, Callable[[Any], Any]]:
        device = f"{_value(0)}.device" if self.inputs else "torch.device('cpu')"
        return {"value": self._use, "device": lambda one: Code(device)}

    def _use(self, number: Any) -> Code:
        self.used.add(int(number))
        return _value(int(number))

    def _written(self, data: Any) -> str:
        return expression(decode(data, self._known))

    def _arguments(self, step: Mapping[str, Any]) -> str:
        named = [f"{name}={self._written(one)}" for name, one in step.get("kwargs", {}).items()]
        if not all(one.isidentifier() for one in step.get("kwargs", {})):
            raise ExportError(f"{list(step['kwargs'])} are no names of arguments.")
        return ", ".join([*(self._written(one) for one in step["args"]), *named])

    def _step(self, step: Mapping[str, Any], number: int) -> Iterator[str]:
        kind = next(iter(step))
        if kind not in _KINDS:
            raise ExportError(f"A step of the kind `{kind}` cannot be written as Python.")
        yield from _KINDS[kind](self, step, _value(number))

    def _call(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        op = operator_named(step["call"])
        packet = op.name().partition("::")[2].partition(".")[0]
        yield f"{value} = torch.ops.aten.{packet}.{op._overloadname}({self._arguments(step)})"

    def _size(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        name = step["size"]
        if name not in SIZES:
            raise ExportError(f"`{name}` is nothing that is done to sizes.")
        place = next((one for one in ("operator", "torch", "math") if _is_of(one, name)), "operator")
        if name == "getitem":
            yield f"{value} = {self._written(step['args'][0])}[{self._written(step['args'][1])}]"
        else:
            yield f"{value} = {place}.{name}({self._arguments(step)})"

    def _layer(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        path = step["layer"]
        yield f"{value} = {reach(path)}({self._arguments(step)})"
        several = len(step["sizes"]) > 1
        for place, sizes in enumerate(step["sizes"]):
            left = self._left(self.layers[path], sizes)
            if any(one is not None for one in left):
                yield f"_expect_sizes({f'_tensors({value})[{place}]' if several else value}, {self._sizes(left)})"

    def _left(self, layer: Mapping[str, Any], sizes: Sequence[Any]) -> list[Any]:
        """Return the sizes that a layer does not give by itself, whatever it is given."""
        name = layer["class"].partition(":")[2]
        own = 1 if name.startswith(CHANNELS) else len(sizes) - 1 if name.startswith(LAST) else None
        return [None if one == "same" or axis == own else one for axis, one in enumerate(sizes)]

    def _sizes(self, sizes: Sequence[Any]) -> str:
        return expression(tuple(self._size_of(one) for one in sizes))

    def _size_of(self, size: Any) -> Any:
        """Write a size: a number, or that of a tensor of another value, along an axis."""
        if not isinstance(size, list):
            return size
        number, output, axis = map(int, size)
        several = number >= self.inputs and len(self.mode["steps"][number - self.inputs]["sizes"]) > 1
        tensor = f"_tensors({self._use(number)})[{output}]" if several else self._use(number)
        return Code(f"{tensor}.shape[{axis}]")

    def _get(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        yield f"{value} = {reach(step['get'])}"

    def _check(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        yield f"_expect({', '.join(map(self._written, step['check']))})"

    def _grad(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        yield f"switched.enter_context(torch.set_grad_enabled({bool(step['grad'])} and given))"

    def _autocast(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        device, dtype, enabled, cache = map(self._written, step["autocast"])
        options = f"dtype={dtype}, enabled={enabled}, cache_enabled={cache}"
        yield f"{value} = switched.enter_context(contextlib.ExitStack())"
        yield f"{value}.enter_context(torch.autocast({device}, {options}))"

    def _leave(self, step: Mapping[str, Any], value: Code) -> Iterator[str]:
        yield f"{self._written(step['leave'])}.close()"

    def _output(self, tree: Any) -> str:
        """Write what comes out; named tuples keep their names."""
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            made = f"collections.namedtuple({type(tree).__name__!r}, {list(tree._fields)!r})"
            name = next((one for one, known in self.records.items() if known == made), f"Output{len(self.records)}")
            self.records[name] = made
            return f"{name}({', '.join(map(self._output, tree))})"
        if isinstance(tree, Mapping):
            return f"{{{', '.join(f'{expression(key)}: {self._output(one)}' for key, one in tree.items())}}}"
        if isinstance(tree, (tuple, list)):
            inside = ", ".join(map(self._output, tree))
            return f"[{inside}]" if isinstance(tree, list) else f"({inside}{',' * (len(tree) == 1)})"
        return expression(tree)


def _is_of(place: str, name: str) -> bool:
    module = {"operator": operator, "torch": torch}.get(place)
    return SIZES[name] is getattr(module, name, None) if module is not None else True


_KINDS: dict[str, Callable[[_Method, Mapping[str, Any], Code], Iterator[str]]] = {
    "call": _Method._call,
    "size": _Method._size,
    "layer": _Method._layer,
    "get": _Method._get,
    "check": _Method._check,
    "grad": _Method._grad,
    "autocast": _Method._autocast,
    "leave": _Method._leave,
}
