"""``example.npz``: inputs that a saved network takes and what it makes of them, and the signature that tells them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ExportError
from ..generation import Call, DynamicNetwork, Example
from .values import decode, encode
from .verifying import outcome_of

__all__ = ["EXAMPLE", "Port", "Shown", "describe_example", "read_example"]

EXAMPLE = "example.npz"
MOST_ROWS, MOST_BYTES = 16, 1 << 21
"""An example is shown by so many samples at most, and by fewer where they are large."""
BATCH = "B"
ARRAY = "array"


class Port(NamedTuple):
    """One tensor that goes in or comes out.

    Parameters
    ----------
    name
        By the forward's own argument; ``output`` of what comes out, with its place where there are several.
    shape
        ``B`` counts samples.
    dtype
        As torch calls it.
    least, most
        Of the example's values; ``None`` where it holds no numbers.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    least: float | None
    most: float | None


class Shown(NamedTuple):
    """An example that was read back.

    Parameters
    ----------
    call
        What the network is called with.
    outputs
        What it made of that where it was saved, by name.
    inputs, made
        The signature: what goes in, and what comes out.
    real
        Whether the values are of a real batch, and not drawn.
    """

    call: Call
    outputs: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    made: tuple[Port, ...]
    real: bool


def describe_example(network: DynamicNetwork, example: Example) -> tuple[dict[str, Any], bytes]:
    """Return the signature as data, and the arrays as a file.

    Parameters
    ----------
    network
        In evaluation mode.
    example
        What it was called with: as values, or by shape.
    """
    call, outputs = _shown(network, example)
    inputs: dict[str, Tensor] = {}
    for name, value in _named(network, call):
        inputs.update((_place(name, path), one) for path, one in _tensors(value))
    names = {id(one): name for name, one in inputs.items()}
    rows = _rows(inputs.values())
    described = {
        "call": encode(tuple(call), lambda one: {ARRAY: names[id(one)]} if isinstance(one, Tensor) else None),
        "inputs": [_port(name, one, rows)._asdict() for name, one in inputs.items()],
        "outputs": [_port(name, one, rows)._asdict() for name, one in outputs.items()],
        "real": example.is_real,
    }
    return described, _packed({**inputs, **outputs})


def _shown(network: DynamicNetwork, example: Example) -> tuple[Call, dict[str, Tensor]]:
    """Return a call with few samples, where the network takes them, and what comes out."""
    for rows in (_few(example), 2, None):
        call = example.drawn(rows)
        found = outcome_of(network, call)
        if found is not None:
            break
    outputs = {name: one for name, one in (found or {}).items() if isinstance(one, Tensor)}
    return call, {name.replace("the output", "output"): one.detach().cpu() for name, one in outputs.items()}


def _few(example: Example) -> int:
    one = sum(part.numel() * part.element_size() for _, part in _tensors(tuple(example.drawn(1))))
    total = _rows(part for _, part in _tensors(tuple(example.drawn())))
    return max(1, min(total or 1, MOST_ROWS, MOST_BYTES // max(one, 1)))


def _named(network: DynamicNetwork, call: Call) -> list[tuple[str, Any]]:
    names = [*network.takes.names[: len(call.args)]]
    names += [f"input{number}" for number in range(len(names), len(call.args))]
    context = [("context", call.context), ("index", call.index)]
    return [*zip(names, call.args, strict=True), *call.kwargs.items(), *context]


def _place(name: str, path: str) -> str:
    return f"{name}{path}"


def _tensors(value: Any) -> list[tuple[str, Tensor]]:
    found, _ = pytree.tree_flatten_with_path(value)
    return [(pytree.keystr(path), one) for path, one in found if isinstance(one, Tensor)]


def _rows(tensors: Any) -> int | None:
    first = next(iter(tensors), None)
    return None if first is None or not first.dim() else int(first.shape[0])


def _port(name: str, one: Tensor, rows: int | None) -> Port:
    shape: tuple[int | str, ...] = tuple(one.shape)
    if shape and rows is not None and shape[0] == rows:
        shape = (BATCH, *shape[1:])
    return Port(name, shape, str(one.dtype).removeprefix("torch."), *_range(one))


def _range(one: Tensor) -> tuple[float | None, float | None]:
    if one.is_complex() or not one.numel():
        return None, None
    numbers = one.double()
    numbers = numbers[torch.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if numbers.numel() else (None, None)


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    file = io.BytesIO()
    arrays = {
        name: (one.float() if one.dtype == torch.bfloat16 else one).detach().numpy() for name, one in tensors.items()
    }
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def read_example(described: Mapping[str, Any], content: bytes) -> Shown:
    """Read what :func:`describe_example` wrote.

    Raises
    ------
    ExportError
        A tensor is missing, too much, or not as its signature says.
    """
    inputs, made = ([_read_port(one) for one in described[which]] for which in ("inputs", "outputs"))
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    ports = {one.name: one for one in (*inputs, *made)}
    if set(tensors) != set(ports):
        raise ExportError(f"`{EXAMPLE}` holds {sorted(tensors)}, but its signature names {sorted(ports)}.")
    rows = _rows(tensors[one.name] for one in inputs)
    tensors = {name: one.to(getattr(torch, ports[name].dtype)) for name, one in tensors.items()}
    for name, one in tensors.items():
        _check(ports[name], one, rows)
    call = Call(*decode(described["call"], {ARRAY: lambda name: tensors[name]}))
    outputs = {one.name: tensors[one.name] for one in made}
    return Shown(call, outputs, tuple(inputs), tuple(made), bool(described["real"]))


def _read_port(told: Mapping[str, Any]) -> Port:
    if told["dtype"] not in ("bool", *_DTYPES):
        raise ExportError(f"`{told['name']}` of `{EXAMPLE}` has an unknown dtype `{told['dtype']}`.")
    return Port(told["name"], tuple(told["shape"]), told["dtype"], told["least"], told["most"])


_DTYPES: Sequence[str] = [
    str(one).removeprefix("torch.") for one in vars(torch).values() if isinstance(one, torch.dtype)
]


def _check(port: Port, one: Tensor, rows: int | None) -> None:
    shape = tuple(rows if size == BATCH else size for size in port.shape)
    if tuple(one.shape) != shape or _range(one) != (port.least, port.most):
        raise ExportError(
            f"`{port.name}` of `{EXAMPLE}` is not what its signature says: it is {tuple(one.shape)} in {_range(one)}, "
            f"but should be {port.shape} in {(port.least, port.most)}."
        )
