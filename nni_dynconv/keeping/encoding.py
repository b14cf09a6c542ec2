"""State as bytes and back: numbers, strings, containers and tensors, in safetensors and JSON. Reading runs no code."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["decode", "encode"]

TREE = "tree"
CONTAINERS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset", deque: "list"}
MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
MAKE: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
MAKE_MAPPING: dict[str, Callable[[Any], Any]] = {"dict": dict, "ordered": OrderedDict, "counter": dict}
NUMBERS = (np.bool_, np.integer, np.floating)


def encode(state: Any) -> bytes:
    """Return a state as bytes.

    Parameters
    ----------
    state
        Dicts, lists, tuples, sets, strings, numbers, ``None``, tensors and arrays, inside one another.

    Raises
    ------
    CheckpointError
        There is something else in it.

    Examples
    --------
    >>> decode(encode({"epoch": 3, 7: (float("inf"), "a")}))
    {'epoch': 3, 7: (inf, 'a')}
    """
    tensors: dict[str, Tensor] = {}
    tree = _plain(state, "state", tensors)
    try:
        return safetensors.torch.save(tensors, {TREE: json.dumps(tree, allow_nan=False)})
    except (ValueError, RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"The state cannot be written: {type(error).__name__}: {error}") from error


def _plain(one: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if one is None or isinstance(one, (bool, np.bool_)):
        return None if one is None else bool(one)
    if isinstance(one, str):
        return "".join(one)  # of NNI's labels, which are strings of a class of their own, the letters
    if isinstance(one, int):
        return int(one)
    if isinstance(one, float):
        return float(one) if math.isfinite(one) else {"float": repr(float(one))}
    if isinstance(one, list):
        return [_plain(item, f"{where}[{place}]", tensors) for place, item in enumerate(one)]
    if isinstance(one, Tensor):
        return _of_tensor("tensor", one, where, tensors)
    if isinstance(one, (np.ndarray, *NUMBERS)):
        return _of_tensor("array" if isinstance(one, np.ndarray) else "number", _of_array(one, where), where, tensors)
    if isinstance(one, (bytes, bytearray)):
        return _of_tensor("bytes", torch.from_numpy(np.frombuffer(bytes(one), dtype=np.uint8).copy()), where, tensors)
    return _of_container(one, where, tensors)


def _of_container(one: Any, where: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    mapping, container = MAPPINGS.get(type(one)), CONTAINERS.get(type(one))
    if mapping is not None:
        return {mapping: [[_plain(key, where, tensors), _plain(one[key], f"{where}.{key}", tensors)] for key in one]}
    if container is not None:
        return {container: [_plain(item, f"{where}[{place}]", tensors) for place, item in enumerate(one)]}
    if isinstance(one, Mapping):  # a read-only view, say
        return _of_container(dict(one), where, tensors)
    raise _refused(f"a {type(one).__module__}.{type(one).__qualname__}", where)


def _of_tensor(kind: str, one: Tensor, where: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    if one.layout != torch.strided or one.is_quantized or one.is_complex():
        raise _refused(f"a tensor of {one.dtype}, {one.layout}", where)
    name = str(len(tensors))
    tensors[name] = one.detach().to("cpu", copy=True).contiguous()
    return {kind: name}


def _of_array(one: Any, where: str) -> Tensor:
    array = np.array(one)
    if array.dtype.kind not in "biuf":
        raise _refused(f"an array of {array.dtype}", where)
    return torch.from_numpy(array)


def _refused(what: str, where: str) -> CheckpointError:
    return CheckpointError(
        f"A checkpoint keeps numbers, strings, lists, dicts and tensors, but `{where}` is {what}. Let its "
        f"`state_dict()` give such."
    )


def decode(raw: bytes) -> Any:
    """Return the state that :func:`encode` made bytes of; nothing is imported or run for it.

    Raises
    ------
    CheckpointError
        They are no such bytes.
    """
    try:
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length].decode())
        tree = json.loads(header["__metadata__"][TREE])
        return _restored(tree, safetensors.torch.load(raw))
    except CheckpointError:
        raise
    except Exception as error:  # what parsers raise of bytes that somebody made
        raise CheckpointError(f"it is no state: {type(error).__name__}: {error}") from error


def _restored(one: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(one, list):
        return [_restored(item, tensors) for item in one]
    if not isinstance(one, dict):
        return one
    ((kind, value),) = one.items()
    if kind in MAKE_MAPPING:
        return MAKE_MAPPING[kind]([(_restored(key, tensors), _restored(item, tensors)) for key, item in value])
    if kind in MAKE or kind == "list":
        items = [_restored(item, tensors) for item in value]
        return items if kind == "list" else MAKE[kind](items)
    if kind == "float":
        return float(value)
    return _of_kind(kind, tensors[value])


def _of_kind(kind: str, tensor: Tensor) -> Any:
    if kind == "tensor":
        return tensor.clone()
    array = tensor.numpy()
    if kind == "bytes":
        return array.tobytes()
    if kind == "array":
        return array.copy()
    if kind == "number":
        return array[()]
    raise CheckpointError(f"it has a `{kind}`, which this version does not know.")
